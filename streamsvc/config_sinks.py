"""The models of sinks for results of windows: ``pipelines.<name>.sink`` of a configuration, if it is not objects."""

from __future__ import annotations

from typing import Any, Self

from pydantic import Field, model_validator

from streamsvc.config_sources import KafkaTopic, KinesisName, Sasl, Tls
from streamsvc.config_types import Brokers, Model
from streamsvc.core.kafka_client import reason_to_refuse_of_producer

_KINDS = ("kafka", "kinesis")


class KafkaSink(Model):
    """A topic of Kafka, MSK or Redpanda. The key of a record is window and group, its value the result, both as JSON.
    Results may come more than once, each time the same: let the topic be compacted."""

    brokers: Brokers = Field(description="Where to begin: host:port, several with commas between them.")
    topic: KafkaTopic = Field(description="It must be there; it is not made.")
    tls: Tls | bool | None = Field(
        default=None, description="true takes the system's CAs; left out, it is on where there is `sasl`."
    )
    sasl: Sasl | None = Field(default=None, description="How to log in; not at all if left out.")
    client: dict[str, str | int | float | bool] = Field(
        default_factory=dict, description="More settings of librdkafka, by its names; those that are ours are refused."
    )

    @model_validator(mode="after")
    def _leaves_our_settings_alone(self) -> Self:
        for setting in self.client:
            reason = reason_to_refuse_of_producer(setting)
            if reason is not None:
                raise ValueError(f"`client` may not set {setting}: {reason}")
        return self


class KinesisSink(Model):
    """A Kinesis data stream, with the credentials and the region of `aws`. The partition key of a record is made of
    window and group, its data is the result as JSON. Results may come more than once, each time the same."""

    stream: KinesisName = Field(description="Its name. It must be there; it is not made.")


class KeyedSink(Model):
    """Results of windows as records with keys. Only for a pipeline with a `window`; one of these."""

    kafka: KafkaSink | None = Field(default=None, description="A Kafka topic.")
    kinesis: KinesisSink | None = Field(default=None, description="A Kinesis data stream.")

    @model_validator(mode="before")
    @classmethod
    def _is_one_sink(cls, value: Any) -> Any:
        if isinstance(value, dict) and len(value) > 1:
            raise ValueError("is one sink: `kafka`, `kinesis` or objects (`path` and what belongs to it)")
        return value

    @property
    def address(self) -> str:
        """Where results go, for people."""
        if self.kafka is not None:
            return f"kafka {self.kafka.topic}"
        return f"kinesis {self.kinesis.stream}" if self.kinesis is not None else ""


def kind_of_sink(value: object) -> str:
    """What a value of ``sink`` is meant to be: ``keyed`` or ``objects``."""
    if isinstance(value, dict):
        return "keyed" if any(kind in value for kind in _KINDS) else "objects"
    return "keyed" if isinstance(value, KeyedSink) else "objects"
