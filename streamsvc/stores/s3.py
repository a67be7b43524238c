"""Objects in an S3 bucket: Amazon's, or any server that honours ``If-None-Match: *``."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import obstore
import pyarrow as pa
from obstore import exceptions
from obstore.store import S3Store as Client

from streamsvc.config import Aws
from streamsvc.contracts import Entry
from streamsvc.errors import StoreRefused, StoreUnavailable, StreamsvcError
from streamsvc.stores.arguments import body_parts, check_key
from streamsvc.stores.aws_credentials import Boto3Chain, credentials_for

_ANSWER_S = 30.0
_SLOWEST_BYTES_PER_S = 128 * 1024
_DELETES_A_CALL = 1000

_REFUSED_STATUS = {301, 401, 403, 404, 405, 501}
_CAUSES = ("connection refused", "dns error", "certificate", "timed out", "connection reset", "connection closed")
_HINTS = {
    301: "The bucket is in another region: set aws.region.",
    401: "Check the credentials.",
    403: "The credentials need s3:GetObject, s3:PutObject, s3:DeleteObject and s3:ListBucket; is the clock right?",
    404: "Make the bucket first, or correct its name.",
    405: "This server does not know the request.",
    501: "This server cannot create objects conditionally (If-None-Match), which exactly once rests on.",
}
_REFUSED_CODES = {
    "AuthorizationHeaderMalformed": _HINTS[301],
    "IllegalLocationConstraintException": _HINTS[301],
    "InvalidBucketName": _HINTS[404],
    "EntityTooLarge": "One object is larger than this store takes: set a smaller sink.buffer.size.",
}
"""With status 400, which else may pass (``ExpiredToken``). Amazon S3 API reference, error responses."""


class S3Store:
    """An ``ObjectStore``. The client tries a failed request a few times for some seconds; every call has a deadline
    that grows with its bytes. A cancelled call leaves its effect unknown."""

    def __init__(self, bucket: str, prefix: str, aws: Aws) -> None:
        self._url = f"s3://{bucket}/{prefix}" if prefix else f"s3://{bucket}"
        self._prefix = prefix
        self._credentials = credentials_for(aws)
        endpoint = aws.endpoints.s3 or aws.endpoint_url or _environment("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")
        region = aws.region or _environment("AWS_REGION", "AWS_DEFAULT_REGION")
        self._client = Client(
            bucket,
            prefix=prefix or None,
            config={"endpoint": endpoint} if endpoint else {},
            region=region or "us-east-1",
            # A bucket with a dot does not match Amazon's certificate as a host name.
            virtual_hosted_style_request=not endpoint and "." not in bucket,
            credential_provider=self._credentials,
            client_options={
                "allow_http": bool(endpoint) and str(endpoint).startswith("http://"),
                "connect_timeout": timedelta(seconds=5),
                "timeout": timedelta(hours=1),
            },
            retry_config={
                "max_retries": 3,
                "retry_timeout": timedelta(seconds=10),
                "backoff": {"init_backoff": timedelta(milliseconds=50), "max_backoff": timedelta(seconds=1)},
            },
        )

    @property
    def url(self) -> str:
        return self._url

    async def create(self, key: str, body: bytes | Sequence[pa.Buffer | bytes]) -> bool:
        parts = body_parts(body)
        async with self._talking(key, sum(map(len, parts))):
            try:
                await obstore.put_async(self._client, self._checked(key), parts, mode="create")
            except exceptions.AlreadyExistsError:
                return False
        return True

    async def get(self, key: str) -> bytes | None:
        try:
            async with self._talking(key):
                answer = await obstore.get_async(self._client, self._checked(key))
            async with self._talking(key, answer.meta["size"]):
                return bytes(await answer.bytes_async())
        except _NoSuchKey:
            return None

    async def size(self, key: str) -> int | None:
        try:
            async with self._talking(key):
                return (await obstore.head_async(self._client, self._checked(key)))["size"]
        except _NoSuchKey:
            return None

    async def list(self, prefix: str, *, after: str = "") -> AsyncIterator[Entry]:
        pages = obstore.list(self._client, prefix or None, offset=after or None)
        while True:
            async with self._talking(prefix):
                page = await anext(pages, None)
            if page is None:
                return
            for found in page:
                if found["path"] <= after:
                    raise StoreRefused(
                        "this store does not list in the order of keys", url=self._url, key=found["path"]
                    )
                after = found["path"]
                yield Entry(after, found["size"])

    async def delete(self, keys: Sequence[str]) -> None:
        for start in range(0, len(keys), _DELETES_A_CALL):
            some = [self._checked(key) for key in keys[start : start + _DELETES_A_CALL]]
            async with self._talking(some[0]):
                await obstore.delete_async(self._client, some)

    def _checked(self, key: str) -> str:
        return check_key(key, prefix=f"{self._prefix}/")

    @asynccontextmanager
    async def _talking(self, key: str, nbytes: int = 0) -> AsyncIterator[None]:
        """Bound a request in time; turn what the client raises into our errors.

        Nothing of a foreign message is handed on but status and code: it may quote headers and credentials.
        """
        try:
            async with asyncio.timeout(_ANSWER_S + nbytes / _SLOWEST_BYTES_PER_S):
                yield
        except TimeoutError:
            raise StoreUnavailable("the store did not answer in time", url=self._url, key=key) from None
        except (exceptions.BaseError, FileNotFoundError) as error:
            raise self._mapped(error, key) from None

    def _mapped(self, error: Exception, key: str) -> StreamsvcError:
        text = str(error)
        status_found = re.search(r"status code: (\d{3})\b", text)
        code_found = re.search(r"<Code>(\w{1,60})</Code>", text)
        status = int(status_found[1]) if status_found else (301 if "redirect" in text else None)
        code = code_found[1] if code_found else None
        where: dict[str, Any] = {"url": self._url, "key": key, "status": status, "code": code}
        where = {name: value for name, value in where.items() if value is not None}
        if isinstance(error, FileNotFoundError) and code != "NoSuchBucket":
            return _NoSuchKey("there is nothing under this key", **where)
        if status is None and isinstance(self._credentials, Boto3Chain) and self._credentials.failed:
            return self._credentials.failed.failure(self._url)
        refused = isinstance(error, exceptions.PermissionDeniedError | exceptions.UnauthenticatedError)
        if refused or status in _REFUSED_STATUS:
            return StoreRefused("the store refuses", hint=_HINTS.get(status or 403, ""), **where)
        if code in _REFUSED_CODES:
            return StoreRefused("the store refuses", hint=_REFUSED_CODES[code], **where)
        if status is not None:
            return StoreUnavailable("the store answered with a fault", **where)
        causes = [cause for cause in _CAUSES if cause in text.lower()]
        return StoreUnavailable(f"the store does not answer: {causes[0] if causes else 'no cause is known'}", **where)


class _NoSuchKey(StoreRefused):
    """Where a key must exist (a create), it means that the place to put it does not."""


def _environment(*names: str) -> str | None:
    """The first of these variables that is set."""
    return next((os.environ[name] for name in names if os.environ.get(name)), None)
