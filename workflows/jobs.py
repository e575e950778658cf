"""The Celery functions of workflows."""

from __future__ import annotations

from opscore.celery import app


@app.task(name="workflows.fire_schedules")
def fire_schedules() -> None:
    """Start the runs of schedules that are due."""
    from workflows import firing  # noqa: PLC0415 - agents need no definitions in memory

    firing.tick()


@app.task(name="workflows.clean_up")
def clean_up() -> None:
    """Delete old slots of schedules, in bounded batches."""
    from workflows import housekeeping  # noqa: PLC0415 - agents need no schedules in memory

    housekeeping.clean_up()
