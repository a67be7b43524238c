"""Records into Kinesis Data Streams."""
