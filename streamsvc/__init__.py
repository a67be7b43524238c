"""Kafka and Kinesis to partitioned Parquet on object storage, exactly once."""

from importlib.metadata import version

__version__ = version("streamsvc")
