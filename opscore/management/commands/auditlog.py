"""The audit log from the machine itself: verify, seal, show, trim."""

from __future__ import annotations

import re
from argparse import ArgumentParser
from datetime import timedelta
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from opscore.audit import chain
from opscore.audit.commands import person
from opscore.database import database_now
from opscore.models import AuditEntry

_EXPECTED = re.compile(r"([0-9]{1,18}):([0-9a-f]{64})")


class Command(BaseCommand):
    """`auditlog verify`, `auditlog seal`, `auditlog show`, `auditlog trim --days N`."""

    help = "Verify, seal, show and trim the audit log."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Define the verbs."""
        verbs = parser.add_subparsers(dest="verb", required=True)
        verify = verbs.add_parser("verify", help="follow the chain; exit 1 at a broken link")
        verify.add_argument("--expect", help="NUMBER:HASH that the chain must still hold")
        verbs.add_parser("seal", help="put new rows into the chain now")
        show = verbs.add_parser("show", help="print the newest rows")
        show.add_argument("--limit", type=int, default=50)
        trim = verbs.add_parser("trim", help="remove old rows; the chain stays verifiable")
        trim.add_argument("--days", type=float, required=True, help="keep those of so many days")

    def handle(self, *args: Any, **options: Any) -> None:
        """Do one verb."""
        verbs = {
            "verify": self._verify,
            "seal": self._seal,
            "show": self._show,
            "trim": self._trim,
        }
        verbs[options["verb"]](options)

    def _verify(self, options: dict[str, Any]) -> None:
        verdict = chain.verify(_expected(options["expect"]))
        if not verdict.ok:
            raise CommandError(f"Row {verdict.broken} is broken: {verdict.problem}.")
        span = f", {verdict.first} to {verdict.last}" if verdict.checked else ""
        self.stdout.write(f"{verdict.checked} rows{span}: whole.")
        self.stdout.write(f"head {verdict.last or 0}:{verdict.head}")

    def _seal(self, options: dict[str, Any]) -> None:
        self.stdout.write(f"{chain.seal()} rows sealed.")

    def _show(self, options: dict[str, Any]) -> None:
        for row in AuditEntry.objects.order_by("-id")[: options["limit"]]:
            who = f"{row.actor or '-'} ({row.address or '-'})"
            status = row.status or ""
            self.stdout.write(f"{row.at:%F %T}  {who:40} {status:4} {row.action}  {row.target}")

    def _trim(self, options: dict[str, Any]) -> None:
        days = options["days"]
        if not 0 <= days <= 36_500:
            raise CommandError("--days: a number from 0 to 36500.")
        count = chain.trim(database_now() - timedelta(days=days), person())
        self.stdout.write(f"{count} rows removed.")


def _expected(text: str | None) -> tuple[int, str] | None:
    if text is None:
        return None
    found = _EXPECTED.fullmatch(text)
    if found is None:
        raise CommandError("--expect: NUMBER:HASH, as verify printed it.")
    return int(found[1]), found[2]
