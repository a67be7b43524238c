"""Where clients of AWS look: region, endpoint, role."""

from __future__ import annotations

from pathlib import Path

import pytest

from streamsvc.config import Aws
from streamsvc.errors import SourceRefused
from streamsvc.sources.kinesis.clients import Clients


@pytest.fixture(autouse=True)
def nothing_around(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("AWS_REGION", "AWS_DEFAULT_REGION", "AWS_PROFILE", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_KINESIS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


async def region_of(aws: Aws, region: str | None = None) -> str:
    async with Clients(aws, region) as clients:
        return str((await clients.get("kinesis")).meta.region_name)


async def test_the_region_of_the_configuration_then_that_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_DEFAULT_REGION", "ap-south-1")
    assert await region_of(Aws()) == "ap-south-1"
    monkeypatch.setenv("AWS_REGION", "eu-west-1")
    assert await region_of(Aws()) == "eu-west-1"
    assert await region_of(Aws(region="eu-north-1")) == "eu-north-1"
    assert await region_of(Aws(region="eu-north-1"), "us-east-2") == "us-east-2"


async def test_no_region_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_REGION", "")
    with pytest.raises(SourceRefused, match="no AWS region is known"):
        await region_of(Aws())
