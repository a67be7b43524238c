"""AWS credentials: from the configuration, from the environment, or by boto3's chain of providers."""

from __future__ import annotations

import asyncio
import os
from datetime import UTC, datetime, timedelta
from importlib.util import find_spec
from typing import TYPE_CHECKING

from streamsvc.config import Aws
from streamsvc.errors import StoreRefused, StoreUnavailable, StreamsvcError

if TYPE_CHECKING:
    import boto3
    from obstore.store import S3Credential, S3CredentialProvider

_ASK_AGAIN_AFTER = timedelta(minutes=5)
_REFUSED = {"AccessDenied", "InvalidClientTokenId", "NoCredentials", "ProfileNotFound", "ValidationError"}


class CredentialsMissing(Exception):
    """Raised through the store's client, which would quote a foreign message; ``failure`` says what happened."""

    def __init__(self, cause: str) -> None:
        super().__init__(cause)
        self.cause = cause

    def failure(self, url: str) -> StreamsvcError:
        kind = StoreRefused if self.cause in _REFUSED else StoreUnavailable
        return kind(
            "there are no AWS credentials to be had",
            hint="Check aws.profile and aws.role_arn, the environment and the role of this machine.",
            cause=self.cause,
            url=url,
        )


def credentials_for(aws: Aws) -> S3CredentialProvider | Boto3Chain | None:
    """``None``: the client finds them itself (environment, web identity, container, instance metadata).

    A profile or a role needs boto3; with neither, boto3's chain is used where it is installed and the
    environment holds no key. Nothing is imported or fetched here. Raises ``StoreRefused``.
    """
    if (aws.access_key_id is None) != (aws.secret_access_key is None):
        raise StoreRefused(
            "half a pair of AWS keys", hint="Set both aws.access_key_id and aws.secret_access_key, or neither."
        )
    if aws.access_key_id and not aws.role_arn:
        return lambda: _configured(aws)
    if not (aws.profile or aws.role_arn) and "AWS_ACCESS_KEY_ID" in os.environ:
        return None
    if find_spec("boto3") is not None:
        return Boto3Chain(aws)
    if aws.profile or aws.role_arn:
        raise StoreRefused(
            "aws.profile and aws.role_arn need the AWS provider chain", hint="Run: pip install 'streamsvc[aws]'"
        )
    return None


def _configured(aws: Aws) -> S3Credential:
    assert aws.access_key_id is not None
    assert aws.secret_access_key is not None
    return {
        "access_key_id": aws.access_key_id.get_secret_value(),
        "secret_access_key": aws.secret_access_key.get_secret_value(),
        "token": aws.session_token.get_secret_value() if aws.session_token else None,
        "expires_at": None,
    }


class Boto3Chain:
    """Whatever boto3 finds, and the role on top of it. Called by the store's client whenever it needs fresh ones."""

    def __init__(self, aws: Aws) -> None:
        self._aws = aws
        self._session: boto3.Session | None = None
        self.failed: CredentialsMissing | None = None

    async def __call__(self) -> S3Credential:
        try:
            found = await asyncio.to_thread(self._fetch)
        except CredentialsMissing as missing:
            self.failed = missing
            raise
        self.failed = None  # not before: calls that go side by side fail for the same reason
        return found

    def _fetch(self) -> S3Credential:
        from botocore.exceptions import BotoCoreError, ClientError  # noqa: PLC0415 - optional, and slow to import

        try:
            session = self._session = self._session or self._open()
            return self._assume(session) if self._aws.role_arn else self._found(session)
        except ClientError as error:
            raise CredentialsMissing(str(error.response.get("Error", {}).get("Code", "ClientError"))) from None
        except BotoCoreError as error:
            raise CredentialsMissing(type(error).__name__.removesuffix("Error")) from None

    def _open(self) -> boto3.Session:
        import boto3  # noqa: PLC0415 - optional, and slow to import

        keys = _configured(self._aws) if self._aws.access_key_id else None
        return boto3.Session(
            # boto3 itself reads AWS_DEFAULT_REGION only.
            region_name=self._aws.region or os.environ.get("AWS_REGION") or None,
            profile_name=self._aws.profile,
            aws_access_key_id=keys["access_key_id"] if keys else None,
            aws_secret_access_key=keys["secret_access_key"] if keys else None,
            aws_session_token=keys.get("token") if keys else None,
        )

    def _assume(self, session: boto3.Session) -> S3Credential:
        assert self._aws.role_arn is not None
        sts = session.client("sts", endpoint_url=self._aws.endpoints.sts)
        answer = sts.assume_role(RoleArn=self._aws.role_arn, RoleSessionName="streamsvc")
        assumed = answer["Credentials"]
        return {
            "access_key_id": assumed["AccessKeyId"],
            "secret_access_key": assumed["SecretAccessKey"],
            "token": assumed["SessionToken"],
            "expires_at": assumed["Expiration"].astimezone(UTC),
        }

    @staticmethod
    def _found(session: boto3.Session) -> S3Credential:
        credentials = session.get_credentials()
        if credentials is None:
            raise CredentialsMissing("NoCredentials")
        frozen = credentials.get_frozen_credentials()
        return {
            "access_key_id": str(frozen.access_key),
            "secret_access_key": str(frozen.secret_key),
            "token": frozen.token,
            # botocore renews at least ten minutes before its credentials end.
            "expires_at": datetime.now(UTC) + _ASK_AGAIN_AFTER,
        }
