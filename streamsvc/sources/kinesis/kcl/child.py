"""What the MultiLangDaemon starts for each shard: passes bytes between the daemon and the service, and nothing else.

Run as a file by a bare interpreter, so it imports nothing of the package. It ends when the daemon closes its standard
input, and for no other reason: a child that ends by itself makes the daemon end with all its other shards
(amazon-kinesis-client 3.1.3, ``MultiLangShardRecordProcessor.stopProcessing``). Signals to the whole process group
(Ctrl-C, a unit that is stopped) are therefore not for it. Where the service cannot be reached it goes on trying; once
the service has hung up it answers nothing more, and the service, if it lives, starts the daemon anew.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import sys
import time

SOCKET = "STREAMSVC_KCL_SOCKET"
GENERATION = "STREAMSVC_KCL_GENERATION"

CHUNK = 256 * 1024
RETRY_S = 0.2

_STDIN, _STDOUT = 0, 1


def main() -> int:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    service = _connect(os.environ[SOCKET])
    if service is not None:
        try:
            service.sendall(os.environ[GENERATION].encode() + b"\n")
            _relay(service)
        except OSError:
            pass
        service.close()
    _wait_for_the_end()
    return 0


def _connect(path: str) -> socket.socket | None:
    """``None``: the daemon is gone before the service was there."""
    daemon = select.poll()
    daemon.register(_STDIN, 0)
    while not daemon.poll(0):
        service = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            service.connect(path)
        except OSError:
            service.close()
            time.sleep(RETRY_S)
        else:
            return service
    return None


def _relay(service: socket.socket) -> None:
    """Until either side hangs up. The daemon's messages are long and wait for the service; answers are short, and the
    daemon is always reading when they come: neither write can wait for the other."""
    while True:
        readable, _, _ = select.select([_STDIN, service.fileno()], [], [])
        if service.fileno() in readable:
            answer = service.recv(CHUNK)
            if not answer:
                return
            _write(answer)
        if _STDIN in readable:
            part = os.read(_STDIN, CHUNK)
            if not part:
                return
            service.sendall(part)


def _write(data: bytes) -> None:
    while data:
        data = data[os.write(_STDOUT, data) :]


def _wait_for_the_end() -> None:
    while os.read(_STDIN, CHUNK):
        pass


if __name__ == "__main__":
    sys.exit(main())
