"""Wiring of the ground floor."""

from __future__ import annotations

from django.apps import AppConfig
from django.db.models.signals import post_migrate


class OpscoreConfig(AppConfig):
    """Projects, API keys, events; loads the Celery app so that jobs are registered."""

    name = "opscore"
    verbose_name = "Platform"

    def ready(self) -> None:
        """Register the jobs of all apps, and who listens to logins and migrations."""
        from opscore import (  # noqa: F401, PLC0415
            celery,
            logins,
            roles,
        )
        from opscore.audit import pages  # noqa: F401, PLC0415

        # Here, not where it is written: behind the receiver of Django that makes the rights.
        post_migrate.connect(roles.keep_roles, dispatch_uid="opscore.roles")
