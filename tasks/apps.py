"""Wiring of the tasks app."""

from __future__ import annotations

from django.apps import AppConfig


class TasksConfig(AppConfig):
    """How work runs durably."""

    name = "tasks"

    def ready(self) -> None:
        """Listen to the agents floor and answer it; name what follows a transition."""
        from agents import workload  # noqa: PLC0415 - all of them need the models
        from tasks import following, receivers, workloads  # noqa: F401, PLC0415

        workload.known_by(workloads.Workloads())
