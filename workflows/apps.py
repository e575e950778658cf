"""Wiring of the workflows app."""

from __future__ import annotations

from django.apps import AppConfig


class WorkflowsConfig(AppConfig):
    """See the package's docstring."""

    name = "workflows"

    def ready(self) -> None:
        """Listen to the floors below."""
        from workflows import receivers, subworkflows  # noqa: F401, PLC0415 - need the models
