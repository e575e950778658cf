"""`manage.py bootstrap`: the first key and the admin user, made once."""

from __future__ import annotations

import json
from io import StringIO
from typing import Any

import pytest
from django.contrib.auth import authenticate
from django.core.management import call_command

from opscore import keys

pytestmark = pytest.mark.django_db


def test_a_new_database_gets_a_key_and_an_admin_user_once() -> None:
    made = _answer()
    assert keys.verify(made["api_key"]).scopes == ["admin"]
    user = authenticate(username="admin", password=made["admin_password"])
    assert user is not None
    assert _answer() == {"api_key": "", "admin_password": ""}


def test_a_key_that_is_still_valid_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    made = _answer()
    monkeypatch.setenv("OPSCORE_BOOTSTRAP_KEY", made["api_key"])
    assert _answer()["api_key"] == ""


@pytest.mark.parametrize("lost", ["", "ok_unknown_secret"])
def test_a_caller_whose_key_is_not_valid_here_gets_a_new_one(
    monkeypatch: pytest.MonkeyPatch, lost: str
) -> None:
    first = _answer()["api_key"]
    monkeypatch.setenv("OPSCORE_BOOTSTRAP_KEY", lost)
    second = _answer()["api_key"]
    assert second not in {"", first}
    assert keys.verify(second).scopes == ["admin"]


def test_people_read_what_was_made() -> None:
    text = _run()
    assert "api key (shown once): ok_" in text
    assert "admin password (shown once): " in text
    assert _run() == "api key: is there\nadmin password: is there\n"


def _run(**options: Any) -> str:
    out = StringIO()
    call_command("bootstrap", stdout=out, **options)
    return out.getvalue()


def _answer() -> dict[str, str]:
    found: dict[str, str] = json.loads(_run(json=True).splitlines()[-1])
    return found
