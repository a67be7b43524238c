from typing import Any

from aws_kinesis_agg import messages_pb2 as messages_pb2

def deaggregate_records(records: list[dict[str, Any]]) -> list[dict[str, Any]]: ...
