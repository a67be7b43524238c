"""Results of windows into Kafka topics."""
