"""What librdkafka logs, without secrets and without its endless repeats; and the one thing that only its log tells:
that a topic's id changed."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Sequence
from threading import Lock
from time import monotonic
from typing import Protocol

_NO_ID = "AAAAAAAAAAAAAAAAAAAAAA"
_ID_CHANGED = re.compile(r"Topic (\S+) changed id from (\S+) to (\S+)$")


class Logger(Protocol):
    """``logging.Logger`` is one."""

    def log(self, level: int, msg: str, *args: object) -> None: ...


REPEAT_S = 60.0
MAX_REMEMBERED = 200


class Repeats:
    """Which lines to leave out: those that were logged less than a minute ago but for their numbers, by any client of
    a source. Without a broker, librdkafka says so again at each try, of which there are twenty a second at first."""

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._lock = Lock()
        self._known: dict[str, tuple[float, int]] = {}

    def left_out(self, text: str) -> int | None:
        """``None``: leave it out. Else how often it was left out since it was last logged."""
        kind, now = re.sub(r"\d+", "#", text), self._clock()
        with self._lock:
            logged_at, count = self._known.get(kind, (-REPEAT_S, 0))
            if now - logged_at < REPEAT_S:
                self._known[kind] = logged_at, count + 1
                return None
            if len(self._known) >= MAX_REMEMBERED:
                self._known.clear()
            self._known[kind] = now, 0
            return count


class ClientLog:
    """The ``logger`` of one client. librdkafka calls it while the client is polled, in the polling thread.

    A consumer that is reading a topic when it is deleted and created anew goes on at its old offset in the new topic,
    without an error (a FIXME in librdkafka 2.16, ``rd_kafka_topic_metadata_update``). Its debug log says that the id
    changed, and comes through the same queue as the records, before the first one of the new topic.
    """

    def __init__(
        self,
        logger: Logger,
        secrets: Sequence[str] = (),
        *,
        forward_debug: bool = False,
        repeats: Repeats | None = None,
    ) -> None:
        self._logger = logger
        self._repeats = repeats or Repeats()
        self._secrets = [secret for secret in secrets if secret]
        self._forward_debug = forward_debug
        self._new_ids: dict[str, str] = {}

    def log(self, level: int, message: str, *args: object) -> None:
        text = message % args if args else message
        if level <= logging.DEBUG:
            self._notice_id(text)
            if not self._forward_debug:
                return
        for secret in self._secrets:
            text = text.replace(secret, "[redacted]")
        left_out = 0 if level <= logging.DEBUG else self._repeats.left_out(text)
        if left_out is not None:
            self._logger.log(level, "%s", f"{text} ({left_out} more like this before)" if left_out else text)

    def take_new_ids(self) -> dict[str, str]:
        """Ids of topics that were logged since the last call, as split names write them."""
        taken, self._new_ids = self._new_ids, {}
        return taken

    def _notice_id(self, text: str) -> None:
        changed = _ID_CHANGED.search(text)
        if changed is not None:
            self._new_ids[changed[1]] = topic_id_text(changed[3])


def topic_id_text(topic_id: object) -> str:
    """A topic id as split names write it: base64url, empty if the broker gives none."""
    text = str(topic_id)
    return "" if text == _NO_ID else text.replace("+", "-").replace("/", "_")
