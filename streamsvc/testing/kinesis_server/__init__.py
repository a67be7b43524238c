"""A small Kinesis Data Streams that tells the truth, for tests and measurements: in this process, or in its own.

What it does is what the AWS API Reference and Developer Guide say; where they are silent, what the code cites. It keeps
everything in memory, does not look at signatures, and speaks HTTP/1.1 alone, as botocore does (a KCL wants HTTP/2).
``python -m streamsvc.testing.kinesis_server --port N`` runs one.
"""

from streamsvc.testing.kinesis_server.faults import Fault, random_faults
from streamsvc.testing.kinesis_server.limits import Limits
from streamsvc.testing.kinesis_server.server import KinesisServer

__all__ = ["Fault", "KinesisServer", "Limits", "random_faults"]
