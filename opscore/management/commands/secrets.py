"""Look after the encryption of secrets from the machine itself."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from opscore import vault
from opscore.audit.commands import person
from opscore.audit.record import note
from opscore.sealing import SealedError


class Command(BaseCommand):
    """`secrets reseal`: the second step of changing the key that secrets are encrypted with."""

    help = "Encrypt all secrets with the first key of OPSCORE_SEAL_KEYS."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Define the one verb."""
        parser.add_argument("verb", choices=["reseal"])

    def handle(self, *args: Any, **options: Any) -> None:
        """Encrypt them anew; with a key missing nothing changes."""
        who = person()
        try:
            count = vault.reseal()
        except SealedError as error:
            raise CommandError(str(error)) from None
        note("secrets reseal", who, data={"secrets": count})
        self.stdout.write(f"{count} secrets are encrypted with the first key now.")
