"""Objects in a local directory, created whole, once and durably.

An object is staged in a hidden folder, brought to disk, and then linked to its name: link(2) fails if the name is
taken, and shows either nothing or all of the object. A process that dies leaves at most a staged file, which
nobody lists and the next process sweeps away.
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path, PurePath
from stat import S_ISREG
from threading import Lock
from uuid import uuid4

import pyarrow as pa

from streamsvc.contracts import Entry
from streamsvc.errors import StoreRefused, StoreUnavailable
from streamsvc.stores.arguments import body_parts, check_key

STAGING = ".streamsvc-staging"

_REFUSED = {
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
    errno.ENAMETOOLONG,
    errno.ENOTDIR,
    errno.EISDIR,
    errno.EEXIST,
    errno.ELOOP,
    errno.EXDEV,
    errno.EOPNOTSUPP,
    errno.ENOSYS,
    errno.EINVAL,
    errno.EILSEQ,
}
"""What waiting does not mend. A full disk (ENOSPC, EDQUOT), a bad one (EIO) and a network file system that was
away (ESTALE) may be mended; so may ENOENT, where a folder was removed by hand: the next try makes it again."""

_ABSENT = (FileNotFoundError, IsADirectoryError, NotADirectoryError)
_REMEMBERED_FOLDERS = 10_000


class LocalStore:
    """An ``ObjectStore``. The directory is made by the first create. Blocking calls run in threads; a cancelled
    call leaves its effect unknown, as a store across a network does."""

    def __init__(self, root: PurePath) -> None:
        self._root = Path(root)
        self._staging = self._root / STAGING
        self._durable: set[Path] = set()
        self._swept = False
        self._sweeping = Lock()

    @property
    def url(self) -> str:
        return f"file://{self._root}"

    async def create(self, key: str, body: bytes | Sequence[pa.Buffer | bytes]) -> bool:
        return await asyncio.to_thread(self._create, self._path(key), body_parts(body))

    async def get(self, key: str) -> bytes | None:
        return await asyncio.to_thread(self._read, self._path(key))

    async def size(self, key: str) -> int | None:
        return await asyncio.to_thread(self._size, self._path(key))

    async def list(self, prefix: str, *, after: str = "") -> AsyncIterator[Entry]:
        for entry in await asyncio.to_thread(self._list, prefix, after):
            yield entry

    async def delete(self, keys: Sequence[str]) -> None:
        await asyncio.to_thread(self._delete, [self._path(key) for key in keys])

    def _path(self, key: str) -> Path:
        if STAGING in check_key(key).split("/"):
            raise ValueError(f"an object key inside the staging folder: {key!r}")
        return self._root / key

    def _create(self, path: Path, parts: Sequence[memoryview]) -> bool:
        with self._mapped(path):
            self._sweep()
            self._make_durable(path.parent)
            with self._staged(parts) as staged:
                created = _linked(staged, path)
            _fsync_folder(path.parent)
            return created

    def _read(self, path: Path) -> bytes | None:
        with self._mapped(path), suppress(*_ABSENT):
            return path.read_bytes()
        return None

    def _size(self, path: Path) -> int | None:
        with self._mapped(path), suppress(*_ABSENT):
            status = path.stat()
            return status.st_size if S_ISREG(status.st_mode) else None
        return None

    def _list(self, prefix: str, after: str) -> Sequence[Entry]:
        found = []
        folders = [self._root / prefix]
        while folders:
            folder = folders.pop()
            with self._mapped(folder), suppress(*_ABSENT), os.scandir(folder) as entries:
                for entry in entries:
                    path = Path(entry.path)
                    if entry.is_dir(follow_symlinks=False):
                        folders += [path] if entry.name != STAGING else []
                    elif (key := str(path.relative_to(self._root))) > after and (size := self._size(path)) is not None:
                        found.append(Entry(key, size))
        return sorted(found, key=lambda entry: entry.key)

    def _delete(self, paths: Sequence[Path]) -> None:
        for path in paths:
            with self._mapped(path):
                path.unlink(missing_ok=True)

    @contextmanager
    def _staged(self, parts: Sequence[memoryview]) -> Iterator[Path]:
        """A file on disk with these bytes. Its lock tells a sweep that its writer lives."""
        path = self._staging / uuid4().hex
        with path.open("xb") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            try:
                file.writelines(parts)
                file.flush()
                os.fsync(file.fileno())
                yield path
            finally:
                path.unlink(missing_ok=True)

    def _sweep(self) -> None:
        """Once in the life of a store, remove what dead writers have staged.

        A file that another process has opened and not yet locked may go too: its link fails, and it tries again.
        """
        with self._sweeping:
            if self._swept:
                return
            self._make_durable(self._staging)
            for path in self._staging.iterdir():
                with suppress(BlockingIOError, FileNotFoundError), path.open("rb") as file:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    path.unlink()
            self._swept = True

    def _make_durable(self, folder: Path) -> None:
        """Make the folder; every name on the way that may be new is brought to disk in its parent."""
        if folder in self._durable:
            return
        if self._root in folder.parents or not folder.is_dir():
            self._make_durable(folder.parent)
            _make_folder(folder)
            _fsync_folder(folder.parent)
        if len(self._durable) >= _REMEMBERED_FOLDERS:
            self._durable.clear()
        self._durable.add(folder)

    @contextmanager
    def _mapped(self, path: Path) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self._durable.clear()  # a folder may have been removed by hand
            self._swept = False
            reason = os.strerror(error.errno) if error.errno is not None else type(error).__name__
            kind = StoreRefused if error.errno in _REFUSED else StoreUnavailable
            raise kind(f"the file system said: {reason}", hint=_hint(error, self._root), path=str(path)) from error


def _hint(error: OSError, root: Path) -> str:
    if error.errno in _REFUSED:
        return (
            f"Waiting does not help: let this user write below {root} (owner, mode, a file in the place of a folder, "
            "a mount that is read-only or without hard links), or correct the path."
        )
    return f"Check the space of the disk at {root}, and that it is there."


def _make_folder(folder: Path) -> None:
    """The parent was there just now. If it still is, nothing can be made in it, as in ``/proc``: that stays so."""
    try:
        folder.mkdir(exist_ok=True)
    except FileNotFoundError as error:
        if not folder.parent.is_dir():
            raise
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM), str(folder)) from error


def _linked(staged: Path, path: Path) -> bool:
    try:
        path.hardlink_to(staged)
    except FileExistsError:
        if path.is_dir():
            raise
        return False
    return True


def _fsync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
