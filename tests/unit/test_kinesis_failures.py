"""What AWS's errors become, and that they say what to do."""

from __future__ import annotations

from typing import Any

import aiohttp
import pytest
from botocore.exceptions import (
    ClientError,
    ConnectionClosedError,
    CredentialRetrievalError,
    EndpointConnectionError,
    NoCredentialsError,
    NoRegionError,
    ParamValidationError,
    ProfileNotFound,
    ReadTimeoutError,
)

from streamsvc.errors import SourceRefused, SourceUnavailable, StreamsvcError
from streamsvc.sources.kinesis import failures


def answered(code: str, message: str = "", status: int = 400) -> ClientError:
    answer: Any = {"Error": {"Code": code, "Message": message}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return ClientError(answer, "GetRecords")


@pytest.mark.parametrize(
    ("error", "kind", "parts"),
    [
        (
            answered("AccessDeniedException", "User: me is not authorized to perform: kinesis:GetRecords"),
            SourceRefused,
            ["no permission", "not authorized", "Allow kinesis:GetRecords"],
        ),
        (
            answered("ResourceNotFoundException", "Stream access under account 1 not found."),
            SourceRefused,
            ["Stream access under account 1 not found", "region=eu-west-1", "aws.region"],
        ),
        (answered("KMSAccessDeniedException"), SourceRefused, ["cannot be decrypted", "kms:Decrypt"]),
        (answered("KMSDisabledException"), SourceRefused, ["disabled"]),
        (answered("ExpiredTokenException"), SourceRefused, ["Renew the credentials"]),
        (answered("UnrecognizedClientException", "hunter2"), SourceRefused, ["does not know the access key"]),
        (answered("InvalidSignatureException", "hunter2"), SourceRefused, ["clock"]),
        (answered("InvalidArgumentException", "no such number"), SourceRefused, ["no such number"]),
        (answered("ValidationException", "1 error"), SourceRefused, ["1 error", "errors of GetRecords"]),
        (answered("ProvisionedThroughputExceededException"), SourceUnavailable, ["throttles"]),
        (answered("KMSThrottlingException"), SourceUnavailable, ["throttles"]),
        (answered("LimitExceededException"), SourceUnavailable, ["throttles"]),
        (answered("ResourceInUseException", "it is CREATING"), SourceUnavailable, ["it is CREATING"]),
        (answered("InternalFailure", status=500), SourceUnavailable, ["a fault"]),
        (answered("503", status=503), SourceUnavailable, ["a fault"]),
        (answered("InternalFailureException"), SourceUnavailable, ["a fault"]),
        (EndpointConnectionError(endpoint_url="https://x"), SourceUnavailable, ["does not answer", "aws.region"]),
        (ConnectionClosedError(endpoint_url="https://x"), SourceUnavailable, ["does not answer"]),
        (ReadTimeoutError(endpoint_url="https://x"), SourceUnavailable, ["does not answer"]),
        (aiohttp.ClientPayloadError("cut"), SourceUnavailable, ["does not answer"]),
        (TimeoutError(), SourceUnavailable, ["does not answer"]),
        (NoCredentialsError(), SourceRefused, ["no AWS credentials"]),
        (ProfileNotFound(profile="x"), SourceRefused, ["no AWS credentials"]),
        (CredentialRetrievalError(provider="x", error_msg="y"), SourceUnavailable, ["cannot be fetched now"]),
        (NoRegionError(), SourceRefused, ["Set `aws.region`"]),
        (ParamValidationError(report="Invalid length"), SourceRefused, ["cannot be made"]),
    ],
)
def test_what_it_is_and_what_to_do(error: Exception, kind: type[StreamsvcError], parts: list[str]) -> None:
    assert isinstance(error, failures.FOREIGN)
    mapped = failures.mapped(error, "kinesis:GetRecords", stream="access", region="eu-west-1")
    assert type(mapped) is kind
    for part in parts:
        assert part in str(mapped)
    assert mapped.hint
    assert "stream=access" in str(mapped)
    assert "hunter2" not in str(mapped)


def test_a_key_that_may_not_be_used_is_another_right_for_who_writes() -> None:
    refused = failures.mapped(answered("KMSAccessDeniedException"), "kinesis:PutRecords", stream="access")
    assert "cannot be encrypted" in str(refused)
    assert "Allow kms:GenerateDataKey" in str(refused)


def test_an_exception_inside_a_subscription() -> None:
    taken = failures.of_event("ResourceInUseException", "Another subscription took over", shard="s")
    assert isinstance(taken, SourceUnavailable)
    assert taken.where["cause"] == failures.IN_USE
    assert isinstance(failures.of_event("KMSNotFoundException", ""), SourceRefused)
    assert isinstance(failures.of_event("InternalFailureException", ""), SourceUnavailable)
