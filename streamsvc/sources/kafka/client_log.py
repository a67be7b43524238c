"""What librdkafka logs, without secrets; and the one thing that only its log tells: that a topic's id changed."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from typing import Protocol

_NO_ID = "AAAAAAAAAAAAAAAAAAAAAA"
_ID_CHANGED = re.compile(r"Topic (\S+) changed id from (\S+) to (\S+)$")


class Logger(Protocol):
    """``logging.Logger`` is one."""

    def log(self, level: int, msg: str, *args: object) -> None: ...


class ClientLog:
    """The ``logger`` of one client. librdkafka calls it while the client is polled, in the polling thread.

    A consumer that is reading a topic when it is deleted and created anew goes on at its old offset in the new topic,
    without an error (a FIXME in librdkafka 2.16, ``rd_kafka_topic_metadata_update``). Its debug log says that the id
    changed, and comes through the same queue as the records, before the first one of the new topic.
    """

    def __init__(self, logger: Logger, secrets: Sequence[str] = (), *, forward_debug: bool = False) -> None:
        self._logger = logger
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
        self._logger.log(level, "%s", text)

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
