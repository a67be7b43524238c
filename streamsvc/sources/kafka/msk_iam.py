"""Tokens for Amazon MSK's IAM authentication: SASL OAUTHBEARER with a signed URL as the token.

The signer is in the ``aws`` extra. It makes tokens that live 15 minutes; librdkafka asks again at 80 % of that.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TypeAlias

from streamsvc.config import Aws
from streamsvc.config_sources import Sasl
from streamsvc.core.kafka_client import msk_region
from streamsvc.errors import SourceRefused
from streamsvc.sources.kafka.client_log import Logger

TokenMaker: TypeAlias = Callable[[str], tuple[str, float]]
"""librdkafka's ``oauth_cb``: takes ``sasl.oauthbearer.config``; answers a token and when it ends, in epoch seconds."""


def token_maker(sasl: Sasl, brokers: str, aws: Aws | None, logger: Logger) -> TokenMaker:
    """Raises ``SourceRefused`` if the extra is not installed or no region is known."""
    try:
        from aws_msk_iam_sasl_signer import MSKAuthTokenProvider  # noqa: PLC0415  # an extra that few need
        from botocore.exceptions import BotoCoreError, ClientError  # noqa: PLC0415
    except ImportError as missing:
        raise SourceRefused(
            "AWS_MSK_IAM needs the MSK token signer", hint="install it: pip install 'streamsvc[aws]'"
        ) from missing
    region = sasl.region or (aws.region if aws else None) or msk_region(brokers)
    if region is None:
        raise SourceRefused("AWS_MSK_IAM needs a region", hint="set `sasl.region` or `aws.region`", brokers=brokers)

    def sign() -> tuple[str, int]:
        if aws is not None and aws.role_arn is not None:
            return MSKAuthTokenProvider.generate_auth_token_from_role_arn(region, aws.role_arn)
        if aws is not None and aws.profile is not None:
            return MSKAuthTokenProvider.generate_auth_token_from_profile(region, aws.profile)
        return MSKAuthTokenProvider.generate_auth_token(region)

    def make(_config: str) -> tuple[str, float]:
        try:
            token, expires_ms = sign()
        except (BotoCoreError, ClientError) as error:
            # librdkafka says only that the callback failed. The error's text may hold credentials; its name does not.
            logger.log(logging.ERROR, "no credentials for AWS_MSK_IAM: %s", type(error).__name__)
            raise
        return token, expires_ms / 1000

    return make
