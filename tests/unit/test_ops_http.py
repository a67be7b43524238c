import asyncio
import json
import signal
import socket
from collections.abc import Callable
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest

from streamsvc.errors import Fatal
from streamsvc.ops.health import PipelineStatus, Problems, ServiceStatus, SplitStatus, WindowsStatus, WindowStatus
from streamsvc.ops.http import serving
from streamsvc.ops.metrics import Metrics


def pipeline(**changes: Any) -> PipelineStatus:
    status: PipelineStatus = {
        "source": "kafka",
        "sink": "s3://lake/access/",
        "records_read": 1000,
        "rows_landed": 900,
        "rejects": {},
        "splits": [],
        "open_segment": None,
        "landing": False,
        "last_commit": None,
        "last_objects": [],
        "windows": None,
    }
    return {**status, **changes}  # type: ignore[typeddict-item]


def windows(as_of: str, *, rows: int = 2, **changes: Any) -> WindowsStatus:
    window: WindowStatus = {
        "window_start": "2026-11-24T12:00:00Z",
        "window_end": "2026-11-24T12:05:00Z",
        "groups": rows,
        "rows": [
            {"window_start": "2026-11-24T12:00:00Z", "path": f"/{n}<b>", "requests": 1_000 + n, "mean": n / 3}
            for n in range(rows)
        ],
        "rows_left_out": 7,
    }
    status: WindowsStatus = {
        "provisional": True,
        "as_of": as_of,
        "watermark": "2026-11-24T12:04:10Z",
        "held_by": "access-3",
        "held_since": "2026-11-24T12:05:31Z",
        "unfinished": 0,
        "open": 3,
        "groups": 12_345,
        "windows": [window] * 3,
    }
    return {**status, **changes}  # type: ignore[typeddict-item]


class Scripted:
    """A service that says what it is told to say."""

    def __init__(self) -> None:
        self.dead: Problems = {}
        self.unready: Problems = {}
        self.pipelines: list[dict[str, PipelineStatus]] = [{"access": pipeline()}]

    def live(self) -> Problems:
        return self.dead

    def ready(self) -> Problems:
        return self.unready

    def metrics(self) -> bytes:
        return Metrics("web-logs").exposition()

    def status(self) -> ServiceStatus:
        return {
            "service": "web-logs",
            "version": "1",
            "started": "2026-11-24T20:00:00+00:00",
            "workers": [
                {
                    "worker": number,
                    "pid": 100 + number,
                    "restarts": 0,
                    "memory_used_bytes": 1024,
                    "memory_budget_bytes": 4096,
                    "pipelines": pipelines,
                }
                for number, pipelines in enumerate(self.pipelines)
            ],
        }


class Answer:
    def __init__(self, code: int, headers: Any, body: bytes) -> None:
        self.code, self.headers, self.text = code, headers, body.decode()


async def get(url: str, method: str = "GET") -> Answer:
    def call() -> Answer:
        try:
            with urlopen(Request(url, method=method), timeout=30) as response:
                return Answer(response.status, response.headers, response.read())
        except HTTPError as error:
            with error:
                return Answer(error.code, error.headers, error.read())

    return await asyncio.to_thread(call)


async def test_alive_and_ready() -> None:
    async with serving(Scripted(), "127.0.0.1:0") as address:
        for path in ("/livez", "/readyz"):
            answer = await get(f"{address}{path}")
            assert (answer.code, json.loads(answer.text)) == (200, {"ok": True, "problems": {}})
        assert (await get(f"{address}/livez", "HEAD")).code == 200
        assert (await get(f"{address}/livez", "POST")).code == 405
        assert (await get(f"{address}/nothing")).code == 404


async def test_not_ready_says_why_and_is_alive() -> None:
    health = Scripted()
    health.unready = {"access: sink": "the store did not answer"}
    async with serving(health, "127.0.0.1:0") as address:
        answer = await get(f"{address}/readyz")
        assert answer.code == 503
        assert json.loads(answer.text) == {"ok": False, "problems": dict(health.unready)}
        assert (await get(f"{address}/livez")).code == 200


async def test_what_is_dead_is_not_ready_either() -> None:
    health = Scripted()
    health.dead = {"worker 1": "no report for 40 s"}
    async with serving(health, "127.0.0.1:0") as address:
        for path in ("/livez", "/readyz"):
            answer = await get(f"{address}{path}")
            assert answer.code == 503
            assert "no report for 40 s" in answer.text


async def test_metrics_and_status() -> None:
    health = Scripted()
    health.pipelines = [{"access": pipeline(rejects={"lone \ud800 surrogate": 1})}]
    async with serving(health, "127.0.0.1:0") as address:
        metrics = await get(f"{address}/metrics")
        assert metrics.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
        assert 'streamsvc_ready{service="web-logs"} 0.0' in metrics.text
        status = await get(f"{address}/status")
        assert json.loads(status.text) == health.status()
        assert (await get(f"{address}/")).code == 200


async def test_the_page_adds_up_the_workers_and_shows_problems() -> None:
    health = Scripted()
    splits: list[list[SplitStatus]] = [
        [{"split": "access@0.x", "position": "05", "lag_records": 3, "lag_milliseconds": None}],
        [{"split": "access@1.x", "position": "07", "lag_records": None, "lag_milliseconds": 61_500}],
    ]
    health.pipelines = [{"access": pipeline(splits=each, rejects={"malformed": 2})} for each in splits]
    health.unready = {"access: source": "no assignment yet"}
    async with serving(health, "127.0.0.1:0") as address:
        text = (await get(f"{address}/")).text
    for expected in (
        "2,000",
        "1,800",
        "malformed 4",
        "access@0.x",
        "access@1.x",
        "61.5 s",
        "no assignment yet",
        "worker 1",
    ):
        assert expected in text


async def test_the_page_is_inert_whatever_the_names_are() -> None:
    health = Scripted()
    hostile = "</td><script>alert(1)</script>{0}{evil}&amp;\"'"
    health.pipelines = [
        {
            hostile: pipeline(
                source=hostile,
                sink=hostile,
                rejects={hostile: 1},
                splits=[{"split": hostile, "position": hostile, "lag_records": None, "lag_milliseconds": None}],
                last_objects=[{"url": hostile, "rows": 1, "nbytes": 1, "kind": hostile}],
            )
        }
    ]
    health.unready = {hostile: hostile}
    async with serving(health, "127.0.0.1:0") as address:
        answer = await get(f"{address}/")
    assert "<script" not in answer.text
    assert answer.text.count("&lt;script&gt;alert(1)&lt;/script&gt;{0}{evil}&amp;amp;&quot;&#x27;") == 11
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert "http" not in answer.text.replace("http-equiv", "")


async def test_a_thousand_splits_make_a_short_page() -> None:
    health = Scripted()
    splits = [
        {"split": f"access@{n}.x", "position": "0", "lag_records": 0, "lag_milliseconds": None} for n in range(1000)
    ]
    health.pipelines = [{"access": pipeline(splits=splits)}]
    async with serving(health, "127.0.0.1:0") as address:
        text = (await get(f"{address}/")).text
    assert "936 more" in text
    assert len(text) < 20_000


async def test_no_server() -> None:
    async with serving(Scripted(), None) as address:
        assert address is None


async def test_ipv6() -> None:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("no IPv6 on this machine")
    async with serving(Scripted(), "[::1]:0") as address:
        assert address is not None
        assert address.startswith("http://[::1]:")
        assert (await get(f"{address}/livez")).code == 200


async def test_every_address() -> None:
    async with serving(Scripted(), ":0") as address:
        assert address is not None
        port = address.rpartition(":")[2]
        assert (await get(f"http://127.0.0.1:{port}/livez")).code == 200


async def test_a_port_that_is_taken_says_so() -> None:
    async with serving(Scripted(), "127.0.0.1:0") as address:
        assert address is not None
        taken = address.removeprefix("http://")
        with pytest.raises(Fatal, match="the port is taken") as caught:
            async with serving(Scripted(), taken):
                pass
        assert caught.value.where == {"listen": taken}
        assert caught.value.hint


@pytest.mark.parametrize("listen", ["8080", "", "localhost:", "localhost:http", "localhost:65536", "localhost:-1"])
async def test_what_is_no_address(listen: str) -> None:
    with pytest.raises(Fatal, match="not an address"):
        async with serving(Scripted(), listen):
            pass


@pytest.mark.parametrize("listen", ["no-such-host.invalid:0", "203.0.113.1:0"])
async def test_an_address_of_another_machine(listen: str) -> None:
    with pytest.raises(Fatal, match=r"http\.listen"):
        async with serving(Scripted(), listen):
            pass


def handlers() -> list[Callable[..., Any] | int | None]:
    return [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]


async def test_signals_are_left_to_the_service() -> None:
    before = handlers()
    async with serving(Scripted(), "127.0.0.1:0") as address:
        await get(f"{address}/livez")
        assert handlers() == before


async def test_a_cancelled_block_frees_the_port() -> None:
    listening = asyncio.Event()
    addresses: list[str | None] = []

    async def serve() -> None:
        async with serving(Scripted(), "127.0.0.1:0") as address:
            addresses.append(address)
            listening.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(serve())
    await listening.wait()
    assert (await get(f"{addresses[0]}/livez")).code == 200
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert addresses[0] is not None
    async with serving(Scripted(), addresses[0].removeprefix("http://")) as again:
        assert (await get(f"{again}/livez")).code == 200


async def test_open_windows_are_those_of_the_worker_that_looked_last() -> None:
    health = Scripted()
    health.pipelines = [
        {"access": pipeline(), "per_5m": pipeline(windows=windows("2026-11-24T12:04:20+00:00", open=1))},
        {"access": pipeline(), "per_5m": pipeline(windows=windows("2026-11-24T12:04:21+00:00", open=2))},
        {"per_5m": pipeline()},
    ]
    async with serving(health, "127.0.0.1:0") as address:
        answer = await get(f"{address}/windows")
        assert answer.headers["content-type"] == "application/json"
        assert json.loads(answer.text) == {"per_5m": windows("2026-11-24T12:04:21+00:00", open=2)}


async def test_a_stream_of_events_says_what_changes_and_ends_with_the_server() -> None:
    health = Scripted()
    health.pipelines = [{"per_5m": pipeline(windows=windows("2026-11-24T12:04:20+00:00"))}]

    def change() -> None:
        health.pipelines = [{"per_5m": pipeline(windows=windows("2026-11-24T12:04:21+00:00", open=9))}]

    def read(address: str, loop: asyncio.AbstractEventLoop) -> list[Any]:
        request = Request(f"{address}/windows", headers={"accept": "text/event-stream"})
        with urlopen(request, timeout=30) as answer:
            assert answer.headers["content-type"].startswith("text/event-stream")
            found: list[Any] = []
            while len(found) < 2:
                line = answer.readline().decode()
                if line.startswith("data: "):
                    found.append(json.loads(line.removeprefix("data: ")))
                    loop.call_soon_threadsafe(change)
            return found

    async with serving(health, "127.0.0.1:0") as address:
        assert address is not None
        found = await asyncio.to_thread(read, address, asyncio.get_running_loop())
    assert [answer["per_5m"]["open"] for answer in found] == [3, 9]


async def test_the_page_shows_open_windows_once_and_some_of_their_rows() -> None:
    health = Scripted()
    at = windows("2026-11-24T12:04:20+00:00", rows=20)
    health.pipelines = [{"per_5m": pipeline(windows=at)}, {"per_5m": pipeline(windows=at)}]
    async with serving(health, "127.0.0.1:0") as address:
        text = (await get(f"{address}/")).text
    assert text.count("Open windows") == 1
    assert text.count("provisional") == 1
    assert "watermark 2026-11-24 12:04:10 UTC, of access-3 since 2026-11-24 12:05:31 UTC" in text
    assert text.count("2026-11-24 12:00:00 UTC – 2026-11-24 12:05:00 UTC") == 2
    assert "1,000" in text
    assert "/0&lt;b&gt;" in text
    assert "/13" not in text
    assert "and 15 more" in text
    assert "<b>" not in text.partition("Open windows")[2].partition("</section>")[0]
