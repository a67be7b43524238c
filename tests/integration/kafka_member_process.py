"""A member of a consumer group in a process of its own, to be killed: ``BOOTSTRAP TOPIC GROUP INSTANCE PROTOCOL``.

Prints the splits it gets, one a line.
"""

from __future__ import annotations

import asyncio
import sys

from streamsvc.config_sources import KafkaSource as KafkaOptions
from streamsvc.contracts import Assigned
from streamsvc.sources.kafka.source import KafkaSource


async def main(brokers: str, topic: str, group: str, instance: str, protocol: str) -> None:
    options = KafkaOptions.model_validate(
        {"brokers": brokers, "topics": [topic], "group": group, "group_protocol": protocol}
    )
    async with KafkaSource(options, service="t", pipeline="t", instance=instance, queue_bytes=0) as source:
        async for event in source.assignments():
            if isinstance(event, Assigned):
                print(*event.splits, sep="\n", flush=True)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
