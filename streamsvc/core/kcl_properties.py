"""Which properties of the KCL a configuration may set."""

from __future__ import annotations

from types import MappingProxyType
from typing import Final

OURS: Final = MappingProxyType(
    {
        "executablename": "it starts the bridge",
        "applicationname": "say `application`",
        "tablename": "say `lease_table`",
        "streamname": "say `stream`",
        "streamarn": "say `stream_arn`",
        "workerid": "each worker has its own",
        "workeridentifier": "each worker has its own",
        "regionname": "say `aws.region`",
        "kinesisendpoint": "say `aws.endpoints.kinesis`",
        "dynamodbendpoint": "say `aws.endpoints.dynamodb`",
        "initialpositioninstream": "say `start`",
        "initialpositioninstreamextended": "say `start`",
        "retrievalmode": "say `retrieval`",
        "failovertimemillis": "say `failover`",
        "callprocessrecordsevenforemptyrecordlist": "checkpoints wait for it",
        "timeoutinseconds": "it ends the daemon whenever a store is slow",
        "gracefulleasehandofftimeoutmillis": "the bridge counts on its value",
        "isgracefulleasehandoffenabled": "the bridge counts on it",
        "shutdowngracemillis": "the bridge counts on its value",
    }
)
"""By their names in lower case, as bean utilities do not care for the first letter's."""


def reason_to_refuse(name: str) -> str | None:
    """``None``: it may be set."""
    if name.lower().startswith("awscredentialsprovider"):
        return "say `aws.role_arn` or `aws.profile`; without them the SDK looks where it always does"
    return OURS.get(name.lower())
