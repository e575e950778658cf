"""Wiring of the agents app."""

from __future__ import annotations

from django.apps import AppConfig


class AgentsConfig(AppConfig):
    """Who does the work."""

    name = "agents"

    def ready(self) -> None:
        """Listen to Celery: a worker that was started by hand registers itself."""
        from agents import plain_workers  # noqa: F401, PLC0415 - needs the models
