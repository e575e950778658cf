"""Every periodic job of the platform: name, period, queue. Beat only ticks; two beats change nothing."""

from __future__ import annotations

from typing import Any

PLATFORM_QUEUE = "opscore"
#: How the names of queues begin that one agent alone consumes.
OWN_QUEUE = "@"


def _every(job: str, seconds: float) -> dict[str, Any]:
    # Old ticks are worthless, so they expire, by the clock of the worker: not sooner than clocks
    # may differ.
    options = {"queue": PLATFORM_QUEUE, "expires": max(seconds * 2, 300), "ignore_result": True}
    return {"task": job, "schedule": seconds, "options": options}


BEAT_SCHEDULE: dict[str, dict[str, Any]] = {
    "due retries, lost hints, deadlines": _every("tasks.reconcile", 1.0),
    "health of agents": _every("agents.check_health", 2.0),
    "runs that nobody works on": _every("tasks.find_stuck", 60.0),
    "slots of schedules that are due": _every("workflows.fire_schedules", 1.0),
    "the sign that beat is alive": _every("opscore.note_beat", 10.0),
    "tables that grew": _every("opscore.look_at_growth", 2.0),
    "new rows of the audit log": _every("opscore.seal_audit", 5.0),
    "old rows of the audit log": _every("opscore.clean_up", 600.0),
    "messages that expired": _every("tasks.expire_messages", 30.0),
    "old runs, expired idempotency keys, payloads": _every("tasks.clean_up", 600.0),
    "old deliveries to webhooks": _every("webhooks.clean_up", 600.0),
    "old slots of schedules": _every("workflows.clean_up", 600.0),
}
