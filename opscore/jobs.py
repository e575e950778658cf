"""The ground's own jobs; each is harmless when it runs twice or late."""

from __future__ import annotations

from datetime import timedelta

from celery import shared_task
from django.db.models.functions import Now

from opscore import growth, vault
from opscore.audit import chain
from opscore.config import load_config
from opscore.database import database_now
from opscore.logins import WINDOW
from opscore.models import LoginAttempt, RateBucket, Sign


@shared_task(name="opscore.seal_audit")
def seal_audit() -> None:
    """Put the new rows of the audit log into its chain."""
    chain.seal()


@shared_task(name="opscore.note_beat")
def note_beat() -> None:
    """Keep when beat was heard of last; supervisors tick too, but not this."""
    Sign.objects.update_or_create(name=Sign.BEAT, defaults={"seen_at": Now()})


@shared_task(name="opscore.look_at_growth")
def look_at_growth() -> None:
    """Have plans of statements made anew where tables grew."""
    growth.look_again()


@shared_task(name="opscore.clean_up")
def clean_up() -> None:
    """Remove what is older than it is to be kept."""
    # Whatever the limit, a bucket is full again after a day.
    RateBucket.objects.filter(filled_at__lt=database_now() - timedelta(days=1)).delete()
    LoginAttempt.objects.filter(at__lt=database_now() - WINDOW).delete()
    vault.forget_old()
    days = load_config().audit_retention_days
    if days:
        chain.trim(database_now() - timedelta(days=days))
