"""Django's command, with a row of the audit log."""

from __future__ import annotations

from typing import Any

from django.contrib.auth.management.commands import changepassword

from opscore.audit.commands import person
from opscore.audit.record import note


class Command(changepassword.Command):
    """Change somebody's password."""

    def handle(self, *args: Any, **options: Any) -> str | None:
        """Change it, and record who did."""
        who = person()
        said = super().handle(*args, **options)
        note("changepassword", who, target=options["username"] or who.name)
        return said
