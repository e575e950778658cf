"""The Celery functions of webhooks."""

from __future__ import annotations

from opscore.celery import app


@app.task(name="webhooks.clean_up")
def clean_up() -> None:
    """Delete old deliveries, in bounded batches."""
    from webhooks import housekeeping  # noqa: PLC0415 - agents need no webhooks in memory

    housekeeping.clean_up()
