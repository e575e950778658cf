"""The agents app's jobs; each is harmless when it runs twice or late."""

from __future__ import annotations

from celery import shared_task

from agents import health, runtime
from agents.questions import QUESTION


@shared_task(name="agents.check_health")
def check_health() -> None:
    """End the sessions of agents that went silent or have finished what they had."""
    health.check()
    health.finish_drains()


@shared_task(name=QUESTION, send_events=False)
def hear() -> None:
    """Answer that this worker takes messages: its next beat says so."""
    runtime.hear()
