"""Commands on the machine that change something are rows of the audit log."""

from __future__ import annotations

import getpass
import os
from datetime import timedelta
from io import StringIO

import pytest
from django.contrib.auth.models import User
from django.core.management import CommandError, call_command

from opscore import keys, vault
from opscore.audit import chain
from opscore.audit.commands import person
from opscore.audit.record import Actor, note
from opscore.models import ApiKey, AuditEntry, Project
from opscore.vault import KEPT

pytestmark = pytest.mark.django_db


def run(*words: str) -> None:
    call_command(*words, stdout=StringIO(), stderr=StringIO())


def told() -> list[tuple[str, str, str]]:
    return [(row.action, row.actor_kind, row.target) for row in AuditEntry.objects.order_by("id")]


def test_keys_are_made_by_somebody(project: Project) -> None:
    run("apikey", "create", "ci")
    run("apikey", "list")
    assert told() == [("apikey create", "command", "")]


def test_superusers_and_passwords_too(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    User.objects.create_user("bob")
    with pytest.raises(CommandError):
        run("createsuperuser", "--noinput", "--username", "bob", "--email", "b@example.org")
    run("createsuperuser", "--noinput", "--username", "root", "--email", "r@example.org")
    monkeypatch.setattr(getpass, "getpass", lambda prompt: "Wonder-land-9")
    run("changepassword", "bob")
    assert told() == [
        ("createsuperuser", "command", "root"),
        ("changepassword", "command", "bob"),
    ]
    assert User.objects.get(username="bob").check_password("Wonder-land-9")


def test_secrets_that_are_sealed_anew_and_rows_that_a_person_removes(project: Project) -> None:
    vault.put(project, "TOKEN", "long enough")
    run("secrets", "reseal")
    row = AuditEntry.objects.get()
    assert (row.action, row.actor_kind, row.data) == ("secrets reseal", "command", {"secrets": 1})
    run("auditlog", "trim", "--days", "0")
    row = AuditEntry.objects.get()
    assert (row.action, row.actor, row.actor_kind) == (chain.TRIMMED, person().name, "command")
    note("deed", Actor())
    chain.trim(row.at + KEPT + timedelta(days=1))
    assert AuditEntry.objects.get().actor == "retention"


def test_a_ready_database_says_what_was_made(project: Project) -> None:
    run("bootstrap")
    run("bootstrap")
    row = AuditEntry.objects.get()
    assert (row.action, row.data) == ("bootstrap", {"made": ["api_key", "admin_password"]})


def test_an_account_without_a_name_is_its_number(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nobody() -> str:
        raise KeyError("getpwuid(): uid not found: 4711")

    monkeypatch.setattr(getpass, "getuser", nobody)
    key, _ = keys.create(project, "ci", ["read"])
    run("apikey", "revoke", "ci")
    assert AuditEntry.objects.get().actor == f"uid {os.getuid()}"
    assert keys.state_of(ApiKey.objects.get(pk=key.pk)) == "revoked"
