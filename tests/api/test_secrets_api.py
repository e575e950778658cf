"""Secrets by API: values go in and never come out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.management import CommandError, call_command
from django.test import Client
from django.urls import reverse

from opscore import sealing, vault
from opscore.models import AuditEntry, Event, Project, Secret

pytestmark = pytest.mark.django_db

VALUE = "only for executors"


def test_value_goes_in_and_never_comes_out(api: Any) -> None:
    made = api("PUT", "/secrets/TOKEN", {"value": VALUE})
    assert made.status_code == 201
    assert made.json().keys() == {"name", "created_at", "changed_at"}
    assert api("PUT", "/secrets/TOKEN", {"value": VALUE + "!"}).status_code == 200
    for path in ("/secrets", "/secrets/TOKEN", "/events"):
        answer = api("GET", path)
        assert answer.status_code == 200
        assert VALUE not in answer.content.decode()
    audited = AuditEntry.objects.filter(action="PUT /secrets/{name}")
    assert audited.count() == 2
    assert not [one for one in audited if VALUE in str(one.data)]
    row = Secret.objects.get()
    assert VALUE.encode() not in bytes(row.sealed)
    assert vault.read(row.project_id, ["TOKEN"]) == {"TOKEN": VALUE + "!"}
    assert api("DELETE", "/secrets/TOKEN").status_code == 204
    assert api("DELETE", "/secrets/TOKEN").status_code == 404
    told = Event.objects.order_by("id").values_list("kind", "actor")
    assert list(told) == [
        ("secret.created", "test"),
        ("secret.changed", "test"),
        ("secret.deleted", "test"),
    ]


def test_only_admins_change_secrets(make_api: Callable[..., Any], api: Any) -> None:
    api("PUT", "/secrets/TOKEN", {"value": VALUE})
    writer = make_api("read", "write", "agent")
    assert writer("PUT", "/secrets/TOKEN", {"value": "something else"}).status_code == 403
    assert writer("DELETE", "/secrets/TOKEN").status_code == 403
    assert writer("GET", "/secrets").json()["results"][0]["name"] == "TOKEN"
    assert make_api("agent")("GET", "/secrets").status_code == 403


@pytest.mark.parametrize("value", ["short", 1, None, "x" * 40_000, "nul \0 in it"])
def test_bad_value_is_refused_without_quoting_it(api: Any, value: Any) -> None:
    answer = api("PUT", "/secrets/TOKEN", {"value": value})
    assert answer.status_code == 400
    assert not Secret.objects.exists()


def test_admin_makes_and_changes_secrets_and_shows_none(project: Project) -> None:
    User.objects.create_superuser("alice", "alice@example.org", "wonderland")
    browser = Client()
    assert browser.login(username="alice", password="wonderland")
    add = reverse("admin:opscore_secret_add")
    wrong = browser.post(add, {"project": project.pk, "name": "a-b", "value": "short"})
    assert wrong.status_code == 200
    assert b"no digit in front" in wrong.content
    form = {"project": project.pk, "name": "TOKEN", "value": VALUE}
    assert browser.post(add, form).status_code == 302
    secret = Secret.objects.get()
    page = reverse("admin:opscore_secret_change", args=[secret.pk])
    assert VALUE not in browser.get(page).content.decode()
    assert browser.post(page, {"value": "another value"}).status_code == 302
    assert vault.read(project.pk, ["TOKEN"]) == {"TOKEN": "another value"}
    gone = reverse("admin:opscore_secret_delete", args=[secret.pk])
    assert browser.post(gone, {"post": "yes"}).status_code == 302
    assert not Secret.objects.exists()
    assert set(Event.objects.values_list("actor", flat=True)) == {"alice"}
    entries = [str(one.data) for one in AuditEntry.objects.all()]
    assert any("TOKEN" in entry for entry in entries)
    assert not [entry for entry in entries if VALUE in entry or "another value" in entry]


def test_command_reseals_or_says_which_key_is_missing(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    secret, _ = vault.put(project, "TOKEN", VALUE)
    before = bytes(secret.sealed)
    call_command("secrets", "reseal")
    assert "1 secrets are encrypted" in capsys.readouterr().out
    secret.refresh_from_db()
    assert bytes(secret.sealed) != before
    assert sealing.unseal(bytes(secret.sealed)) == VALUE
    Secret.objects.update(sealed=b"of another key")
    with pytest.raises(CommandError, match="OPSCORE_SEAL_KEYS"):
        call_command("secrets", "reseal")
