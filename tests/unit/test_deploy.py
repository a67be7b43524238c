import asyncio
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from ruamel.yaml import YAML

from streamsvc.config_file import load
from streamsvc.ops.http import serving
from tests.unit.test_ops_http import Scripted

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"


def compose() -> dict[str, Any]:
    loaded: dict[str, Any] = YAML(typ="safe").load(DEPLOY / "compose.yaml")
    return loaded


def dockerfile() -> list[str]:
    """Instructions, continuation lines joined."""
    text = (ROOT / "Dockerfile").read_text().replace("\\\n", " ")
    return [line for line in text.splitlines() if line and not line.startswith("#")]


def instruction(word: str) -> str:
    (found,) = [line for line in dockerfile() if line.startswith(f"{word} ")]
    return found.removeprefix(f"{word} ")


def healthcheck() -> list[str]:
    options, _, command = instruction("HEALTHCHECK").partition("CMD ")
    assert "--start-period" in options
    words: list[str] = json.loads(command)
    return words


def locked(name: str) -> Mapping[str, frozenset[str]]:
    """Requirement with its version -> the hashes it may have."""
    blocks = re.split(r"\n(?=[a-z])", (ROOT / name).read_text())
    return {
        block.split(" ", 1)[0]: frozenset(re.findall(r"--hash=(sha256:[0-9a-f]{64})", block))
        for block in blocks
        if re.match(r"[a-z]", block)
    }


def test_services_run_pinned_images_or_ours() -> None:
    for name, service in compose()["services"].items():
        assert ("image" in service) != ("build" in service), name
        if "image" in service:
            tag = service["image"].rpartition(":")[2]
            assert re.search(r"\d", tag), f"{name}: a tag without a version moves"


def test_services_listen_on_this_machine_only() -> None:
    for service in compose()["services"].values():
        for port in service.get("ports", []):
            assert port.startswith("127.0.0.1:")


def test_services_wait_for_services_that_are_there() -> None:
    services = compose()["services"]
    for service in services.values():
        for needed, condition in service.get("depends_on", {}).items():
            if condition["condition"] == "service_healthy":
                assert "test" in services[needed]["healthcheck"]
            else:
                assert condition["condition"] == "service_completed_successfully"
                assert needed in services


def test_mounted_files_and_volumes_are_there() -> None:
    parsed = compose()
    for service in parsed["services"].values():
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            assert (DEPLOY / source).is_file() if source.startswith("./") else source in parsed["volumes"]


def test_the_service_is_confined_and_has_time_to_drain() -> None:
    service = compose()["services"]["streamsvc"]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert load(DEPLOY / "pipeline.yaml", {}).service.drain + 5 <= float(service["stop_grace_period"].removesuffix("s"))


def test_the_configuration_loads() -> None:
    environment = {"KAFKA_BROKERS": "broker:9092", "S3_ENDPOINT": "http://store:8333"}
    assert environment.keys() <= compose()["services"]["streamsvc"]["environment"].keys()
    service = load(DEPLOY / "pipeline.yaml", environment).service
    kafka = service.pipelines["access"].source.kafka
    assert kafka is not None
    assert kafka.brokers == "broker:9092"
    assert service.aws.endpoint_url == "http://store:8333"
    assert service.http is not None
    assert service.http.listen == ":8080", "a port that is published must be listened to on every address"


def test_the_image_is_made_of_files_that_are_there_and_sent() -> None:
    sent = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = {
        source
        for line in dockerfile()
        if line.startswith("COPY ") and "--from" not in line
        for source in shlex.split(line)[1:-1]
    }
    assert {source.removeprefix("./") for source in copied} == sent
    for source in sent:
        assert (ROOT / source).exists()


def test_the_image_runs_without_privilege_and_hears_signals() -> None:
    user = instruction("USER")
    assert all(int(number) >= 1000 for number in user.split(":"))
    assert json.loads(instruction("ENTRYPOINT")) == ["streamsvc"], "a shell in between would swallow SIGTERM"
    assert json.loads(instruction("CMD"))[0] == "run"
    assert instruction("STOPSIGNAL") == "SIGTERM"


def test_everything_installed_is_pinned_by_hash() -> None:
    for name in ("requirements.lock", "requirements-build.lock"):
        assert locked(name), name
        assert all(locked(name).values()), name
    for line in dockerfile():
        for install in re.findall(r"pip install ([^&]*)", line):
            assert "--require-hashes" in install or "--no-index" in install


def test_what_builds_the_package_is_what_tests_it() -> None:
    tested = locked("requirements-dev.lock")
    for requirement, hashes in locked("requirements-build.lock").items():
        assert tested[requirement] == hashes
    for requirement, hashes in locked("requirements.lock").items():
        assert tested[requirement] == hashes


def test_nothing_is_missing_from_what_is_installed() -> None:
    """A requirement that is not locked would fail the installation, which only a build of the image would show."""
    for name in ("requirements.lock", "requirements-build.lock"):
        have = {canonicalize_name(requirement.split("==")[0]) for requirement in locked(name)}
        for package in have - {"colorama"}:
            for text in metadata.requires(package) or ():
                needed = Requirement(text)
                if needed.marker is None or needed.marker.evaluate({"extra": ""}):
                    assert canonicalize_name(needed.name) in have, f"{package} needs {needed} in {name}"


async def test_the_health_check_of_the_image() -> None:
    health = Scripted()

    def check(address: str) -> int:
        command = [sys.executable, *healthcheck()[1:]]
        run = subprocess.run(
            command, env={**os.environ, "STREAMSVC_LIVEZ": f"{address}/livez"}, capture_output=True, check=False
        )
        return run.returncode

    async with serving(health, "127.0.0.1:0") as address:
        assert address is not None
        assert await asyncio.to_thread(check, address) == 0
        health.dead = {"worker 0": "no report for 40 s"}
        assert await asyncio.to_thread(check, address) != 0
    assert await asyncio.to_thread(check, address) != 0


def test_ci_runs_the_checks_and_the_tests() -> None:
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    text = script.read_text()
    assert "set -euo pipefail" in text
    assert "make check" in text
    assert "make test" in text
    assert subprocess.run(["bash", "-n", script], check=False).returncode == 0


def test_the_producer_starts() -> None:
    run = subprocess.run(
        [sys.executable, DEPLOY / "produce_logs.py", "--help"], capture_output=True, text=True, check=False
    )
    assert run.returncode == 0
    assert "--rate" in run.stdout
