"""What AWS's errors mean for us: by their code, or by the class of what botocore raises."""

from __future__ import annotations

from typing import Any

import aiohttp
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    CredentialRetrievalError,
    HTTPClientError,
    NoCredentialsError,
    NoRegionError,
    PartialCredentialsError,
    ProfileNotFound,
)
from botocore.exceptions import (
    ConnectionError as NoConnection,
)

from streamsvc.errors import SourceRefused, SourceUnavailable, StreamsvcError

FOREIGN = (ClientError, BotoCoreError, HTTPClientError, aiohttp.ClientError, OSError, TimeoutError)
"""All that a call may raise."""

SEEK_HINT = "`streamsvc seek` moves the pipeline to a position that exists, and records what is left out"

NOT_FOUND = "ResourceNotFoundException"
IN_USE = "ResourceInUseException"
INVALID = "InvalidArgumentException"
EXPIRED_ITERATOR = "ExpiredIteratorException"
LIMIT = "LimitExceededException"

_THROTTLED = {
    "LimitExceededException",
    "ProvisionedThroughputExceededException",
    "RequestLimitExceeded",
    "SlowDown",
    "Throttling",
    "ThrottlingException",
    "ThrottledException",
    "TooManyRequestsException",
    "KMSThrottlingException",
}

_DENIED = {"AccessDenied", "AccessDeniedException"}

_NO_ENTRY = {
    "IncompleteSignature": "Check the credentials.",
    "InvalidClientTokenId": "AWS does not know the access key: check the credentials, and the region.",
    "InvalidSignatureException": "Check the secret key, the region, and the clock of this machine.",
    "MissingAuthenticationToken": "Check the credentials.",
    "SignatureDoesNotMatch": "Check the secret key, the region, and the clock of this machine.",
    "UnrecognizedClientException": "AWS does not know the access key: check the credentials.",
    "ExpiredToken": "Renew the credentials, and start again.",
    "ExpiredTokenException": "Renew the credentials, and start again.",
    "RequestExpired": "The clock of this machine is wrong, or the credentials have expired.",
    "OptInRequired": "This account has not subscribed to the service.",
    "SubscriptionRequiredException": "This account has not subscribed to the service.",
}

_KMS = {
    "KMSAccessDeniedException": "Allow {right} on the key that the stream is encrypted with.",
    "KMSDisabledException": "The key that the stream is encrypted with is disabled: enable it.",
    "KMSInvalidStateException": "The key that the stream is encrypted with is not in a state to be used.",
    "KMSNotFoundException": "The key that the stream is encrypted with is gone.",
    "KMSOptInRequired": "The account of the key has not subscribed to KMS.",
}

_FAULTS = {"InternalFailure", "InternalFailureException", "InternalServerError", "ServiceUnavailable"}

_QUOTED = {NOT_FOUND, INVALID, IN_USE, "ValidationException", "LimitExceededException", *_DENIED}
"""Codes whose messages hold names, and never a header or a credential."""


def code_of(error: BaseException) -> str:
    """AWS's code; of what is no answer of AWS, the name of the exception."""
    if isinstance(error, ClientError):
        return str(error.response.get("Error", {}).get("Code", "ClientError"))
    return type(error).__name__.removesuffix("Error")


def is_throttle(error: StreamsvcError) -> bool:
    return error.where.get("cause") in _THROTTLED


def is_denial(error: StreamsvcError) -> bool:
    return error.where.get("cause") in _DENIED


def mapped(error: BaseException, action: str, **where: Any) -> StreamsvcError:
    """action: as IAM knows it, ``kinesis:GetRecords``. where: what it was about, and the region."""
    code = code_of(error)
    where = {"action": action, **where, "cause": code}
    service = action.partition(":")[0]
    if isinstance(error, ClientError):
        return _of_answer(error, code, service, where)
    if isinstance(error, NoCredentialsError | PartialCredentialsError | ProfileNotFound):
        return SourceRefused(
            "there are no AWS credentials to be had",
            hint="Check `aws.profile` and `aws.role_arn`, the environment and the role of this machine.",
            **where,
        )
    if isinstance(error, NoRegionError):
        return SourceRefused("no AWS region is known", hint="Set `aws.region`.", **where)
    if isinstance(error, CredentialRetrievalError):
        return SourceUnavailable(
            "AWS credentials cannot be fetched now",
            hint="Does what gives them (metadata service, STS, SSO) answer? It is tried again for ever.",
            **where,
        )
    if isinstance(error, BotoCoreError) and not isinstance(error, HTTPClientError | NoConnection):
        return SourceRefused(f"the request cannot be made: {_first_line(error)}", hint="Check `aws`.", **where)
    hint = f"Is `aws.region` right, and `aws.endpoints.{service}`? It is tried again for ever."
    return SourceUnavailable(f"{service} does not answer", hint=hint, **where)


def of_event(code: str, message: str, **where: Any) -> StreamsvcError:
    """An exception inside a subscription."""
    answer = {"Error": {"Code": code, "Message": message}, "ResponseMetadata": {"HTTPStatusCode": 400}}
    return mapped(ClientError(answer, "SubscribeToShard"), "kinesis:SubscribeToShard", **where)  # type: ignore[arg-type]


def _of_answer(error: ClientError, code: str, service: str, where: dict[str, Any]) -> StreamsvcError:
    told = str(error.response.get("Error", {}).get("Message") or "") if code in _QUOTED else ""
    said = f": {told}" if told else ""
    if code in _DENIED:
        return SourceRefused(f"no permission{said}", hint=f"Allow {where['action']} on it.", **where)
    if code in _KMS:
        writes = where["action"] == "kinesis:PutRecords"
        done, right = ("encrypted", "kms:GenerateDataKey") if writes else ("decrypted", "kms:Decrypt")
        return SourceRefused(f"records cannot be {done}", hint=_KMS[code].format(right=right), **where)
    if code in _NO_ENTRY:
        return SourceRefused(f"{service} does not accept the credentials", hint=_NO_ENTRY[code], **where)
    if code == NOT_FOUND:
        hint = "Create it, or correct its name; is it in this region (`aws.region`) and account?"
        return SourceRefused(f"there is no such resource{said}", hint=hint, **where)
    if code in _THROTTLED:
        return SourceUnavailable(
            f"{service} throttles", hint="Calls are made more slowly, for as long as it does.", **where
        )
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 500)
    if code == IN_USE:
        return SourceUnavailable(f"it is being changed{said}", hint="It is tried again for ever.", **where)
    if status >= 500 or code in _FAULTS:
        hint = "It is tried again for ever; for long, see the AWS Health Dashboard."
        return SourceUnavailable(f"{service} answered with a fault", hint=hint, status=status, **where)
    hint = f"`cause` is among the errors of {where['action'].partition(':')[2]} in the API reference of {service}."
    return SourceRefused(f"{service} refuses the request{said}", hint=hint, status=status, **where)


def _first_line(error: BaseException) -> str:
    return str(error).partition("\n")[0][:200]
