"""Does this store keep its word? Asked before anything rests on it."""

from __future__ import annotations

import asyncio
from uuid import uuid4

from streamsvc.contracts import ObjectStore
from streamsvc.errors import StoreRefused

CREATES = 16
_ROUNDS = 10


async def probe(store: ObjectStore) -> None:
    """Create one key sixteen times at once: exactly one create may win, and its object must be what is read.

    Lost answers can leave a round without a winner; then another key is tried. The objects are deleted again.
    Raises ``StoreRefused`` if creates are not exclusive, and whatever the store raises.
    """
    for _ in range(_ROUNDS):
        if await _one_round(store, f"probe/{uuid4().hex}"):
            return
    raise StoreRefused(
        "no create of a new object ever succeeded",
        hint="Check that this store supports conditional writes (If-None-Match: *).",
        url=store.url,
    )


async def _one_round(store: ObjectStore, key: str) -> bool:
    bodies = [f"{number} of {CREATES}".encode() for number in range(CREATES)]
    won = await asyncio.gather(*(store.create(key, body) for body in bodies))
    found = await store.get(key)
    await store.delete([key])
    winners = [body for body, win in zip(bodies, won, strict=True) if win]
    if len(winners) > 1 or (winners and found != winners[0]):
        raise StoreRefused(
            f"creates are not exclusive here: {len(winners)} of {CREATES} concurrent creates of one key succeeded",
            hint="Use a store with conditional writes (If-None-Match: *), or a local file system with hard links.",
            url=store.url,
            key=key,
        )
    return bool(winners)
