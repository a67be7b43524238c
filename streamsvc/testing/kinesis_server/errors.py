"""The errors that Kinesis answers, as the client sees them."""

from __future__ import annotations


class KinesisError(Exception):
    """``kind`` is the name of an error shape of the service model, ``status`` the HTTP status it comes with."""

    def __init__(self, kind: str, message: str, status: int = 400) -> None:
        super().__init__(f"{kind}: {message}")
        self.kind = kind
        self.message = message
        self.status = status


def invalid(message: str) -> KinesisError:
    return KinesisError("InvalidArgumentException", message)


def not_found(message: str) -> KinesisError:
    return KinesisError("ResourceNotFoundException", message)


def in_use(message: str) -> KinesisError:
    return KinesisError("ResourceInUseException", message)


def throttled(message: str) -> KinesisError:
    return KinesisError("ProvisionedThroughputExceededException", message)


def internal(status: int = 500) -> KinesisError:
    return KinesisError("InternalFailure", "Internal Service Failure", status)
