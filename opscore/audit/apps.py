"""Wiring of the audit log's own commands."""

from __future__ import annotations

from django.apps import AppConfig


class AuditConfig(AppConfig):
    """Stands before Django's own apps, so that its commands take the place of theirs."""

    name = "opscore.audit"
    verbose_name = "Audit"
