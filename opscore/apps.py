"""Wiring of the ground floor."""

from __future__ import annotations

from django.apps import AppConfig


class OpscoreConfig(AppConfig):
    """Projects, API keys, events; loads the Celery app so that jobs are registered."""

    name = "opscore"
    verbose_name = "Platform"

    def ready(self) -> None:
        """Register the jobs of all apps."""
        from opscore import celery  # noqa: F401, PLC0415 - needs the app registry
