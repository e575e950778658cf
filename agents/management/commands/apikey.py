"""Create, list, rotate and revoke API keys from the machine itself."""

from __future__ import annotations

from argparse import ArgumentParser
from datetime import datetime, timedelta
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.utils import timezone

from agents import registry
from agents.models import Agent
from opscore import keys, origin
from opscore.audit.commands import person
from opscore.audit.record import note
from opscore.errors import OpsCoreError
from opscore.models import ApiKey, Project

_LONGEST_DAYS = 36_500


class Command(BaseCommand):
    """`apikey create NAME`, `apikey list`, `apikey rotate PREFIX|NAME`, `apikey revoke PREFIX|NAME`."""

    help = "Create, list, rotate and revoke API keys."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Define the four verbs."""
        parser.add_argument("--project", default="default", help="slug of the project")
        verbs = parser.add_subparsers(dest="verb", required=True)
        create = verbs.add_parser("create", help="make a key and print it, once")
        create.add_argument("name", help="what it is for")
        create.add_argument(
            "--scopes",
            help=f"comma-separated: {', '.join(keys.SCOPES)}; default: read,write, "
            "or agent with --agent",
        )
        create.add_argument("--agent", help="name or id of the only agent that it may act as")
        create.add_argument("--expires-days", type=float, help="days until it expires")
        verbs.add_parser("list", help="show all keys, never their secret")
        rotate = verbs.add_parser("rotate", help="make its successor and print it, once")
        rotate.add_argument("ref", help="its prefix or its name")
        rotate.add_argument(
            "--overlap-s", type=float, default=3600, help="seconds for which the old one works"
        )
        revoke = verbs.add_parser("revoke", help="make a key useless at once")
        revoke.add_argument("ref", help="its prefix or its name")

    def handle(self, *args: Any, **options: Any) -> None:
        """Do one verb; an error is one sentence."""
        verb = {
            "create": self._create,
            "list": self._list,
            "rotate": self._rotate,
            "revoke": self._revoke,
        }
        try:
            who = person()
            project = Project.objects.get(slug=options["project"])
            with origin.begun(origin.Origin()) as source:
                verb[options["verb"]](project, options)
            if source.changes:
                changes = {"changes": source.changes}
                note(f"apikey {options['verb']}", who, project=project, data=changes)
        except Project.DoesNotExist:
            raise CommandError(f"There is no project {options['project']!r}.") from None
        except OpsCoreError as error:
            raise CommandError(str(error)) from None

    def _create(self, project: Project, options: dict[str, Any]) -> None:
        expires_at = _expiry(options["expires_days"])
        agent = registry.find(project, options["agent"]) if options["agent"] else None
        words = options["scopes"] or ("agent" if agent else "read,write")
        scopes = [scope.strip() for scope in words.split(",") if scope.strip()]
        agent_id = agent.pk if agent else None
        _, text = keys.create(
            project, options["name"], scopes, expires_at=expires_at, agent_id=agent_id
        )
        self._show(text)

    def _rotate(self, project: Project, options: dict[str, Any]) -> None:
        seconds = options["overlap_s"]
        if not 0 <= seconds <= _LONGEST_DAYS * 86_400:
            raise CommandError("--overlap-s: a number of seconds, 0 or more.")
        old = keys.find(project, options["ref"])
        _, text = keys.rotate(old, overlap=timedelta(seconds=seconds))
        self.stderr.write(f"The key {old.prefix} works for {seconds:g} more seconds.")
        self._show(text)

    def _show(self, text: str) -> None:
        self.stderr.write("This key is shown only now:")
        self.stdout.write(text)

    def _list(self, project: Project, options: dict[str, Any]) -> None:
        found = ApiKey.objects.filter(project=project).order_by("id")
        agents = dict(Agent.objects.filter(project=project).values_list("id", "name"))
        for key in found:
            state = keys.state_of(key)
            used = f"{key.last_used_at:%F %T}" if key.last_used_at else "never"
            scopes = ",".join(key.scopes)
            whose = f"  only as {agents.get(key.agent_id, key.agent_id)}" if key.agent_id else ""
            line = f"{key.prefix}  {state:8} {scopes:24} used {used:20} {key.name}{whose}"
            self.stdout.write(line)

    def _revoke(self, project: Project, options: dict[str, Any]) -> None:
        for key in keys.revoke(project, options["ref"]):
            self.stdout.write(f"revoked {key.prefix}  {key.name}")


def _expiry(days: float | None) -> datetime | None:
    if days is None:
        return None
    if not 0 < days <= _LONGEST_DAYS:
        raise CommandError(f"--expires-days: a number above 0, at most {_LONGEST_DAYS}.")
    return timezone.now() + timedelta(days=days)
