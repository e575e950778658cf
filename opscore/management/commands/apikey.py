"""Create, list and revoke API keys from the machine itself."""

from __future__ import annotations

from argparse import ArgumentParser
from datetime import datetime, timedelta
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.utils import timezone

from opscore import keys
from opscore.errors import OpsCoreError
from opscore.models import ApiKey, Project

_LONGEST_DAYS = 36_500


class Command(BaseCommand):
    """`apikey create NAME --scopes read,write`, `apikey list`, `apikey revoke PREFIX|NAME`."""

    help = "Create, list and revoke API keys."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Define the three verbs."""
        parser.add_argument("--project", default="default", help="slug of the project")
        verbs = parser.add_subparsers(dest="verb", required=True)
        create = verbs.add_parser("create", help="make a key and print it, once")
        create.add_argument("name", help="what it is for")
        create.add_argument(
            "--scopes", default="read,write", help=f"comma-separated: {', '.join(keys.SCOPES)}"
        )
        create.add_argument("--expires-days", type=float, help="days until it expires")
        verbs.add_parser("list", help="show all keys, never their secret")
        revoke = verbs.add_parser("revoke", help="make a key useless at once")
        revoke.add_argument("ref", help="its prefix or its name")

    def handle(self, *args: Any, **options: Any) -> None:
        """Do one verb; an error is one sentence."""
        verb = {"create": self._create, "list": self._list, "revoke": self._revoke}
        try:
            project = Project.objects.get(slug=options["project"])
            verb[options["verb"]](project, options)
        except Project.DoesNotExist:
            raise CommandError(f"There is no project {options['project']!r}.") from None
        except OpsCoreError as error:
            raise CommandError(str(error)) from None

    def _create(self, project: Project, options: dict[str, Any]) -> None:
        expires_at = _expiry(options["expires_days"])
        scopes = [scope.strip() for scope in options["scopes"].split(",") if scope.strip()]
        _, text = keys.create(project, options["name"], scopes, expires_at=expires_at)
        self.stderr.write("This key is shown only now:")
        self.stdout.write(text)

    def _list(self, project: Project, options: dict[str, Any]) -> None:
        for key in ApiKey.objects.filter(project=project).order_by("id"):
            state = "usable" if keys.is_usable(key) else "revoked" if key.revoked_at else "expired"
            used = f"{key.last_used_at:%F %T}" if key.last_used_at else "never"
            scopes = ",".join(key.scopes)
            self.stdout.write(f"{key.prefix}  {state:8} {scopes:24} used {used:20} {key.name}")

    def _revoke(self, project: Project, options: dict[str, Any]) -> None:
        for key in keys.revoke(project, options["ref"]):
            self.stdout.write(f"revoked {key.prefix}  {key.name}")


def _expiry(days: float | None) -> datetime | None:
    if days is None:
        return None
    if not 0 < days <= _LONGEST_DAYS:
        raise CommandError(f"--expires-days: a number above 0, at most {_LONGEST_DAYS}.")
    return timezone.now() + timedelta(days=days)
