# Clients are made at run time from models of services: their methods have no types.

from contextlib import AbstractAsyncContextManager
from typing import Any

class AioSession:
    def __init__(self, session_vars: Any = None, *, profile: str | None = None) -> None: ...
    def create_client(
        self,
        service_name: str,
        region_name: str | None = None,
        *,
        endpoint_url: str | None = None,
        verify: bool | str | None = None,
        aws_access_key_id: str | None = None,
        aws_secret_access_key: str | None = None,
        aws_session_token: str | None = None,
        config: Any = None,
    ) -> AbstractAsyncContextManager[Any]: ...
    async def get_credentials(self) -> Any: ...
    def register_component(self, name: str, component: Any) -> None: ...
    def set_config_variable(self, logical_name: str, value: str) -> None: ...
