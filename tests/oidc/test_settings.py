"""OpenID Connect that is off, half set, or set without TLS."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client

from opscore.config import Config, load_config
from opscore.models import Project
from opscore.oidc import provider
from opscore.production import refusals
from tests.boot.test_production import FIT
from tests.boot.test_settings import manage

ISSUER = "https://id.example.org"
WHOLE: dict[str, Any] = {
    "oidc_issuer": ISSUER,
    "oidc_client_id": "x",
    "oidc_roles": '{"ops": "operator"}',
}


@pytest.fixture
def config(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Set variables for the length of a test."""

    def change(**changes: str) -> None:
        for name, value in changes.items():
            monkeypatch.setenv(f"OPSCORE_{name.upper()}", value)
        load_config.cache_clear()
        provider.forget()

    yield change
    monkeypatch.undo()
    load_config.cache_clear()


@pytest.mark.django_db
def test_without_an_issuer_there_is_neither_button_nor_page(
    client: Client, project: Project
) -> None:
    for path in ("/admin/oidc/login", "/admin/oidc/callback?code=x&state=y"):
        assert client.get(path).status_code == 404
    assert b"/admin/oidc" not in client.get("/admin/login/").content


@pytest.mark.django_db
def test_passwords_can_be_switched_off(client: Client, project: Project, config: Any) -> None:
    User.objects.create_superuser("root", password="wonderland")
    config(**WHOLE, password_login="false")
    page = client.get("/admin/login/").content
    assert b"Log in with single sign-on" in page
    assert b'name="password"' not in page
    told = {"username": "root", "password": "wonderland"}
    answer = client.post("/admin/login/", told)
    assert (answer.status_code, b"OPSCORE_PASSWORD_LOGIN" in answer.content) == (403, True)
    assert "_auth_user_id" not in client.session


@pytest.mark.django_db
def test_provider_that_is_away_is_said(client: Client, project: Project, config: Any) -> None:
    config(**{**WHOLE, "oidc_issuer": "http://127.0.0.1:1"})
    answer = client.get("/admin/oidc/login")
    assert answer.status_code == 503
    assert b"The provider does not answer" in answer.content


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"OIDC_ISSUER": "id.example.org"}, "OPSCORE_OIDC_ISSUER: a URL"),
        ({"OIDC_ISSUER": ISSUER}, "OPSCORE_OIDC_CLIENT_ID is needed"),
        ({"OIDC_ISSUER": ISSUER, "OIDC_CLIENT_ID": "x"}, "OPSCORE_OIDC_ROLES is needed"),
        ({"OIDC_ROLES": "ops=admin"}, "OPSCORE_OIDC_ROLES: JSON is expected"),
        ({"OIDC_ROLES": '{"ops": "root"}'}, "OPSCORE_OIDC_ROLES: no such role: root"),
        ({"OIDC_PROJECTS": '{"a": {"b": 1}}'}, "OPSCORE_OIDC_PROJECTS: JSON is expected"),
        ({"OIDC_PROJECTS": '{"a": [1]}'}, "OPSCORE_OIDC_PROJECTS: JSON is expected"),
        ({"PASSWORD_LOGIN": "0"}, "OPSCORE_PASSWORD_LOGIN is off"),
    ],
)
def test_half_of_the_settings_is_refused(var_dir: Path, changed: dict[str, str], said: str) -> None:
    done = manage("check", VAR_DIR=str(var_dir), **changed)
    assert done.returncode == 1
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_production_asks_for_a_provider_with_tls() -> None:
    assert refusals(Config(**FIT, **WHOLE), {}) == []
    [said] = refusals(Config(**FIT, **{**WHOLE, "oidc_issuer": "http://id.example.org"}), {})
    assert "OPSCORE_OIDC_ISSUER is without TLS" in said
