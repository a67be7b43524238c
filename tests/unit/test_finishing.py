"""Under what a pending segment is finished, and who must not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import pytest

from streamsvc.core.log_keys import Cursor
from streamsvc.core.segments import Plan, Range
from streamsvc.errors import ConfigError, ForeignVersion
from streamsvc.log.segment_log import SegmentLog
from streamsvc.runtime.finishing import recipe_of
from streamsvc.runtime.segment import Recipe
from streamsvc.testing.scripted_store import ScriptedStore

VERSION = 3


@dataclass
class Made:
    """A recipe, as far as its version."""

    document: dict[str, Any]
    version: int = VERSION


async def _pending(decode_version: int) -> tuple[SegmentLog, Plan]:
    log = SegmentLog(ScriptedStore(), "w", "00", landing_s=1.0)
    digest = await log.save_config({"raw": {}})
    ranges = {"a": Range(Cursor(0, "00"), "10")}
    return log, await log.plan("pending", ranges, config=digest, decode_version=decode_version)


async def test_the_configuration_is_that_of_the_plan() -> None:
    log, plan = await _pending(VERSION)
    recipe = await recipe_of(plan, log, lambda document: cast("Recipe", Made(document)))
    assert cast("Made", recipe).document == {"raw": {}}


async def test_another_version_does_not_finish() -> None:
    log, plan = await _pending(VERSION - 1)
    with pytest.raises(ForeignVersion) as refused:
        await recipe_of(plan, log, lambda document: cast("Recipe", Made(document)))
    assert refused.value.where == {"segment": "pending", "planned_version": VERSION - 1, "our_version": VERSION}


async def test_what_this_version_refuses_is_finished_by_the_one_that_planned_it() -> None:
    """The file may be right by now: what is wrong is in the log."""

    def refuse(_: dict[str, Any]) -> Recipe:
        raise ConfigError(["transform.0.sql: hash() is refused"])

    log, plan = await _pending(VERSION)
    with pytest.raises(ForeignVersion) as refused:
        await recipe_of(plan, log, refuse)
    assert refused.value.where == {"segment": "pending", "problems": ["transform.0.sql: hash() is refused"]}
    assert "version of streamsvc that planned it" in refused.value.hint
