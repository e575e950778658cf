"""`manage.py bootstrap`: a database that is ready to use; run it again at any time."""

from __future__ import annotations

import json
import os
import secrets
from argparse import ArgumentParser
from typing import Any

from django.contrib.auth import get_user_model
from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError
from django.db import OperationalError

from opscore import keys
from opscore.audit.commands import person
from opscore.audit.record import note
from opscore.errors import UnauthorizedError
from opscore.models import ApiKey, Project

_FIRST_KEY = "first"


class Command(BaseCommand):
    """Migrates; makes the admin user and the first API key where they are missing."""

    help = "Migrate the database; make the admin user and the first API key where missing."
    requires_system_checks = ()

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Declare the form of the answer."""
        parser.add_argument("--json", action="store_true", help="answer as one line of JSON")

    def handle(self, *_: Any, **options: Any) -> None:
        """Print what was made; its secrets cannot be read again."""
        try:
            call_command("migrate", verbosity=0, interactive=False)
        except OperationalError as error:
            raise CommandError(f"The database does not answer: {error}") from None
        who = person()
        made = {"api_key": _first_key(), "admin_password": _admin_password()}
        if any(made.values()):
            note("bootstrap", who, data={"made": [name for name, text in made.items() if text]})
        if options["json"]:
            self.stdout.write(json.dumps(made))
            return
        for name, secret in made.items():
            word = name.replace("_", " ")
            self.stdout.write(f"{word} (shown once): {secret}" if secret else f"{word}: is there")


def _first_key() -> str:
    """Return a new key with scope admin; '' when the caller's, or any such key, is valid."""
    known = os.environ.get("OPSCORE_BOOTSTRAP_KEY")
    project, _ = Project.objects.get_or_create(slug="default")
    if known is None:
        if ApiKey.objects.filter(project=project, name=_FIRST_KEY, revoked_at=None).exists():
            return ""
    elif known and _is_valid(known):
        return ""
    return keys.create(project, _FIRST_KEY, ["admin"])[1]


def _is_valid(key: str) -> bool:
    try:
        keys.verify(key)
    except UnauthorizedError:
        return False
    return True


def _admin_password() -> str:
    """Return the password of a new admin user; '' when there is a superuser."""
    users = get_user_model().objects
    if users.filter(is_superuser=True).exists():
        return ""
    password = secrets.token_urlsafe(12)
    users.create_superuser("admin", "", password)
    return password
