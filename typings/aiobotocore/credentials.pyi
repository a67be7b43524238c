from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

class AioRefreshableCredentials: ...

class AioDeferredRefreshableCredentials(AioRefreshableCredentials):
    method: str
    def __init__(self, refresh_using: Callable[[], Awaitable[Mapping[str, Any]]], method: str) -> None: ...

class AioAssumeRoleCredentialFetcher:
    def __init__(
        self,
        client_creator: Callable[..., Any],
        source_credentials: Any,
        role_arn: str,
        extra_args: Mapping[str, Any] | None = None,
    ) -> None: ...
    async def fetch_credentials(self) -> Mapping[str, Any]: ...

class AioCredentialResolver:
    def __init__(self, providers: Sequence[Any]) -> None: ...
