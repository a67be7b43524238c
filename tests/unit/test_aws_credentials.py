"""What is said where there are no credentials."""

from __future__ import annotations

import asyncio

import pytest

from streamsvc.config import Aws
from streamsvc.errors import StoreRefused
from streamsvc.stores.s3 import S3Store


async def test_calls_side_by_side_all_say_that_there_are_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """As the probe makes them: one that begins must not take away why another one has failed."""
    for variable in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(variable, raising=False)
    for variable in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(variable, "/dev/null")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    store = S3Store("lake", "state", Aws(region="us-east-1", endpoint_url="http://127.0.0.1:1"))
    answers = await asyncio.gather(*(store.create(f"{n}", b"") for n in range(16)), return_exceptions=True)
    assert {str(answer).partition(" (")[0] for answer in answers} == {"there are no AWS credentials to be had"}
    assert all(isinstance(answer, StoreRefused) for answer in answers)
