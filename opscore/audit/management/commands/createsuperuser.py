"""Django's command, with a row of the audit log."""

from __future__ import annotations

from typing import Any

from django.contrib.auth.management.commands import createsuperuser
from django.contrib.auth.models import User

from opscore.audit.commands import person
from opscore.audit.record import note


class Command(createsuperuser.Command):
    """Make a superuser."""

    def handle(self, *args: Any, **options: Any) -> str | None:
        """Make one, and record who did."""
        who, last = person(), User.objects.order_by("pk").last()
        said = super().handle(*args, **options)
        for made in User.objects.filter(pk__gt=last.pk if last else 0, is_superuser=True):
            note("createsuperuser", who, target=made.get_username())
        return said
