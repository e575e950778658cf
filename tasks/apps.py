"""Wiring of the tasks app."""

from __future__ import annotations

from django.apps import AppConfig


class TasksConfig(AppConfig):
    """How work runs durably."""

    name = "tasks"

    def ready(self) -> None:
        """Listen to the agents floor; name what follows a transition."""
        from tasks import following, receivers  # noqa: F401, PLC0415 - they need the models
