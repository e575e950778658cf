"""Commands about secrets: each takes the client and its options."""

from __future__ import annotations

import argparse
import getpass
import sys

from opscore_sdk import report
from opscore_sdk.client import Client
from opscore_sdk.statuses import DONE

_COLUMNS = {"name": "name", "changed": "changed_at", "created": "created_at"}


def secrets(client: Client, options: argparse.Namespace) -> int:
    """Show the names of the secrets."""
    found = client.secrets(limit=options.limit)
    report.rows(found, _COLUMNS, "There are no secrets.", as_json=options.json)
    return DONE


def secret(client: Client, options: argparse.Namespace) -> int:
    """Store, change or delete a secret."""
    if options.delete:
        client.delete_secret(options.name)
        report.done(f"{options.name} is deleted", {"name": options.name}, as_json=options.json)
        return DONE
    found = client.set_secret(options.name, _value())
    report.done(f"{options.name} is kept", found, as_json=options.json)
    return DONE


def _value() -> str:
    """Ask for the value without showing it, or read what is piped in, a last line break less."""
    # Never as an argument: other accounts of the machine see those, and shells remember them.
    if sys.stdin.isatty():
        return getpass.getpass("Value: ")
    return sys.stdin.read().removesuffix("\n").removesuffix("\r")
