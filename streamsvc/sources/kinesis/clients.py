"""Clients of AWS: region, credentials and endpoints of the configuration, else what AWS's own tools would find."""

from __future__ import annotations

import os
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Any, Literal, Self

from aiobotocore.config import AioConfig
from aiobotocore.credentials import (
    AioAssumeRoleCredentialFetcher,
    AioCredentialResolver,
    AioDeferredRefreshableCredentials,
)
from aiobotocore.session import AioSession
from botocore.exceptions import BotoCoreError

from streamsvc.config import Aws
from streamsvc.sources.kinesis import failures

Service = Literal["kinesis", "dynamodb"]

CONNECTIONS = 4096
"""A subscription of enhanced fan-out holds one for each shard."""

_CONFIG: dict[Service, dict[str, Any]] = {
    # Who reads a shard waits and tries again in its own way; subscriptions give a sign every five seconds.
    "kinesis": {"read_timeout": 30, "retries": {"total_max_attempts": 1}},
    "dynamodb": {"read_timeout": 5, "retries": {"mode": "standard", "total_max_attempts": 3}},
}


class Clients:
    """Opens a client for a service when it is first asked for, and closes them all.

    region: instead of the configured one, or of the environment's
    """

    def __init__(self, aws: Aws, region: str | None = None) -> None:
        self._aws = aws
        # botocore itself reads AWS_DEFAULT_REGION only.
        self._region = region or aws.region or os.environ.get("AWS_REGION") or None
        self._stack = AsyncExitStack()
        self._session: AioSession | None = None
        self._open: dict[Service, Any] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.clear()
        await self._stack.aclose()

    async def get(self, service: Service) -> Any:
        """aiobotocore's client. Raises ``SourceRefused``: no region, no such profile."""
        if service not in self._open:
            try:
                self._session = self._session or await self._make_session()
                address: str | None = getattr(self._aws.endpoints, service)
                self._open[service] = await self._stack.enter_async_context(
                    self._session.create_client(
                        service,
                        self._region,
                        endpoint_url=address,
                        # To read the CAs of the system takes some tenths of a second.
                        verify=False if address is not None and address.startswith("http://") else None,
                        config=AioConfig(connect_timeout=5, max_pool_connections=CONNECTIONS, **_CONFIG[service]),
                        **({} if self._aws.role_arn else self._keys()),
                    )
                )
            except BotoCoreError as error:
                raise failures.mapped(error, f"{service}:*", region=self._region) from None
        return self._open[service]

    def _keys(self) -> dict[str, str]:
        aws = self._aws
        given = {
            "aws_access_key_id": aws.access_key_id,
            "aws_secret_access_key": aws.secret_access_key,
            "aws_session_token": aws.session_token,
        }
        return {name: secret.get_secret_value() for name, secret in given.items() if secret is not None}

    async def _make_session(self) -> AioSession:
        session = AioSession(profile=self._aws.profile)
        if self._aws.role_arn is None:
            return session
        keys = self._keys()
        found = _FixedKeys(**keys) if keys else await session.get_credentials()
        role = AioSession(profile=self._aws.profile)
        role.register_component(
            "credential_provider", AioCredentialResolver([_Role(self._aws, session, found, self._region)])
        )
        return role


class _FixedKeys:
    """Credentials of the configuration, in the shape that a role is assumed with."""

    def __init__(
        self, aws_access_key_id: str, aws_secret_access_key: str, aws_session_token: str | None = None
    ) -> None:
        self.access_key = aws_access_key_id
        self.secret_key = aws_secret_access_key
        self.token = aws_session_token

    async def get_frozen_credentials(self) -> _FixedKeys:
        return self


class _Role:
    """botocore's shape of a credential provider: the configured role, assumed again before it expires."""

    METHOD = "assume-role"
    CANONICAL_NAME = "AssumeRole"

    def __init__(self, aws: Aws, session: AioSession, source: Any, region: str | None) -> None:
        self._aws = aws
        self._session = session
        self._source = source
        self._region = region

    async def load(self) -> AioDeferredRefreshableCredentials:
        fetcher = AioAssumeRoleCredentialFetcher(
            self._sts, self._source, str(self._aws.role_arn), {"RoleSessionName": "streamsvc"}
        )
        return AioDeferredRefreshableCredentials(fetcher.fetch_credentials, self.METHOD)

    def _sts(self, service: str, **keys: str | None) -> Any:
        return self._session.create_client(service, self._region, endpoint_url=self._aws.endpoints.sts, **keys)
