"""The lease table in DynamoDB, in the KCL's own format."""

from __future__ import annotations

from typing import Any


class LeaseTable:
    """Rows of one KCL application. The table's name is the application's.

    dynamodb: an open aiobotocore client for DynamoDB; it outlives the table and is not closed here."""

    def __init__(self, dynamodb: Any, name: str) -> None:
        self._dynamodb = dynamodb
        self.name = name
        self.problem: str | None = None
