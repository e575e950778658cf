"""Schedules: what starts runs by the clock."""

from __future__ import annotations

from typing import Any

from opscore_sdk.asking import Talk, ask, given, part, rows
from opscore_sdk.wire import Backfilled, Schedule, Slot


def schedules(*, limit: int = 50, **filters: str) -> Talk[list[Schedule]]:
    """Return the schedules that start runs, newest first; filters: name, workflow, paused."""
    return (yield from rows("/schedules", Schedule.read, limit, filters))


def schedule(ref: str) -> Talk[Schedule]:
    """Return a schedule by id or name, with its next five slots."""
    answer = yield from ask("GET", _path(ref))
    return Schedule.read(answer)


def create_schedule(
    name: str,
    workflow: str,
    *,
    cron: str | None = None,
    every_s: int | None = None,
    idempotency_key: str | None = None,
    **options: Any,
) -> Talk[Schedule]:
    """Create a schedule by `cron` or `every_s`.

    Options: version, timezone, inputs, slot_input, priority, fairness_key, catch_up,
    catch_up_window_s, overlap, paused.
    """
    body = {"name": name, "workflow": workflow, **given(cron=cron, every_s=every_s), **options}
    answer = yield from ask("POST", "/schedules", body=body, idempotency_key=idempotency_key)
    return Schedule.read(answer)


def change_schedule(ref: str, **fields: Any) -> Talk[Schedule]:
    """Change what is named (see `create_schedule`); the rest stays."""
    answer = yield from ask("PATCH", _path(ref), body=fields)
    return Schedule.read(answer)


def delete_schedule(ref: str) -> Talk[None]:
    """Delete a schedule and its slots; the runs stay."""
    yield from ask("DELETE", _path(ref))


def pause_schedule(ref: str) -> Talk[Schedule]:
    """Fire no more slots until it is resumed."""
    answer = yield from ask("POST", _path(ref, "/pause"))
    return Schedule.read(answer)


def resume_schedule(ref: str) -> Talk[Schedule]:
    """Go on from now; slots of the pause are not made good (see `backfill_schedule`)."""
    answer = yield from ask("POST", _path(ref, "/resume"))
    return Schedule.read(answer)


def trigger_schedule(
    ref: str, *, overlap: str | None = None, idempotency_key: str | None = None
) -> Talk[Slot]:
    """Fire now, beside the timetable; `overlap`: another policy than the schedule's."""
    body = given(overlap=overlap)
    path = _path(ref, "/trigger")
    answer = yield from ask("POST", path, body=body, idempotency_key=idempotency_key)
    return Slot.read(answer)


def backfill_schedule(
    ref: str, start: str, end: str, *, overlap: str | None = None
) -> Talk[Backfilled]:
    """Have every slot from `start` to before `end` (ISO 8601) run that started no run yet."""
    body = {"from": start, "to": end, **given(overlap=overlap)}
    answer = yield from ask("POST", _path(ref, "/backfill"), body=body)
    return Backfilled.read(answer)


def slots(ref: str, *, limit: int = 50, **filters: str) -> Talk[list[Slot]]:
    """Return a schedule's slots, newest first; filters: outcome, cause."""
    return (yield from rows(_path(ref, "/slots"), Slot.read, limit, filters))


def _path(ref: str, verb: str = "") -> str:
    return f"/schedules/{part(ref)}{verb}"
