"""The agents app's periodic jobs; each is harmless when it runs twice or late."""

from __future__ import annotations

from celery import shared_task

from agents import health


@shared_task(name="agents.check_health")
def check_health() -> None:
    """End the sessions of agents that went silent or have finished what they had."""
    health.check()
    health.finish_drains()
