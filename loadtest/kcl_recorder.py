"""A KCL application of the simplest kind, for ``kcl_takeover``: writes down what it is given, and checkpoints it.

    python kcl_recorder.py <folder> <limit>

Started by a MultiLangDaemon, once a shard. Of each shard but the first it takes ``limit`` records, writes them to a
file of its own, checkpoints the last, wherever in an aggregate that is, and takes no more. A bare interpreter runs it.
"""

from __future__ import annotations

import base64
import json
import os
import sys
from pathlib import Path
from typing import Any, TextIO

WHOLE = "shardId-000000000000"
"""Of this shard everything is taken, so that its end comes to be checkpointed."""


def say(message: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()


def checkpoint(sequence: str | None, sub: int | None) -> None:
    say({"action": "checkpoint", "sequenceNumber": sequence, "subSequenceNumber": sub})
    answer = json.loads(sys.stdin.readline())
    if answer.get("error"):
        sys.stderr.write(f"checkpoint refused: {answer['error']}\n")


def take(message: dict[str, Any], room: int, file: TextIO) -> int:
    """How many records were taken."""
    records = message["records"][:room]
    for record in records:
        value = base64.b64decode(record["data"]).decode()
        file.write(json.dumps([record["sequenceNumber"], record["subSequenceNumber"], value]) + "\n")
    file.flush()
    if records:
        checkpoint(records[-1]["sequenceNumber"], records[-1]["subSequenceNumber"])
    return len(records)


def main(folder: str, limit: int) -> None:
    shard, room = "", limit
    with open(Path(folder) / f"{os.getpid()}.jsonl", "w") as file:  # noqa: PTH123
        for line in sys.stdin:
            message = json.loads(line)
            if message["action"] == "initialize":
                shard = message["shardId"]
                room = sys.maxsize if shard == WHOLE else limit
                file.write(json.dumps([shard, message["sequenceNumber"], message["subSequenceNumber"]]) + "\n")
                file.flush()
            elif message["action"] == "processRecords":
                room -= take(message, room, file)
            elif message["action"] == "shardEnded" and room > 0:
                checkpoint(None, None)
            say({"action": "status", "responseFor": message["action"]})


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
