"""Agents of kind http over the API: what is refused, the secret that is shown once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from uuid import uuid4

import pytest

from agents.models import Agent, AgentSession, Endpoint
from opscore import attempt_tokens, keys
from opscore.config import load_config
from opscore.models import IdempotentAnswer, Project
from tests.api.conftest import Api, api, make_api

__all__ = ["api", "make_api"]

pytestmark = pytest.mark.django_db

ANN = {"name": "ann", "kind": "http", "url": "http://127.0.0.1:9/work", "capabilities": ["echo"]}


@pytest.fixture(autouse=True)
def _allow(loopback: None) -> None:
    pass


def test_secret_is_shown_once(api: Api) -> None:
    made = api("POST", "/agents", ANN, Idempotency_Key="k")
    assert made.status_code == 201
    secret = made.json()["secret"]
    assert len(secret) == 64
    assert made.json()["endpoint"] == {
        "url": ANN["url"],
        "health_path": "",
        "concurrency": 1,
        "timeout_s": 300.0,
    }
    # Sent again with its key the answer is the first one, though no row holds the secret.
    assert api("POST", "/agents", ANN, Idempotency_Key="k").json()["secret"] == secret
    assert "secret" not in (IdempotentAnswer.objects.get().answer or {})["body"]
    assert secret not in str(list(Endpoint.objects.values()))
    again = api("POST", "/agents", {**ANN, "concurrency": 7, "health_path": "/health"})
    assert (again.status_code, "secret" in again.json()) == (200, False)
    shown = api("GET", "/agents/ann").json()
    assert (shown["endpoint"]["concurrency"], "secret" in shown) == (7, False)
    changed = api("POST", "/agents/ann/secret").json()["secret"]
    assert changed != secret
    assert api("POST", "/agents/ann/secret").json()["secret"] != changed


def test_only_admins_see_or_change_secrets(api: Api, make_api: Callable[..., Api]) -> None:
    api("POST", "/agents", ANN)
    for scope in ("read", "write", "agent"):
        assert make_api(scope)("POST", "/agents/ann/secret").status_code == 403
        assert make_api(scope)("POST", "/agents", ANN).status_code == 403


@pytest.mark.parametrize(
    ("change", "path"),
    [
        ({"url": ""}, "url"),
        ({"url": "ftp://x/"}, "url"),
        ({"url": "http://10.0.0.1/"}, "url"),
        ({"url": "http://169.254.169.254/latest/meta-data"}, "url"),
        ({"url": "http://[::ffff:10.0.0.1]/"}, "url"),
        ({"health_path": "health"}, "health_path"),
        ({"health_path": "//evil.example/"}, "health_path"),
        ({"health_path": "/a b"}, "health_path"),
        ({"concurrency": 0}, "concurrency"),
        ({"concurrency": 1001}, "concurrency"),
        ({"timeout_s": 0}, "timeout_s"),
        ({"kind": "remote"}, "url"),
    ],
)
def test_what_cannot_be_is_refused(api: Api, change: dict[str, Any], path: str) -> None:
    answer = api("POST", "/agents", {**ANN, **change})
    assert answer.status_code == 400, answer.content
    assert path in [problem["path"] for problem in answer.json()["errors"]]
    assert not Agent.objects.exists()


def test_url_is_needed(api: Api) -> None:
    wish = {name: value for name, value in ANN.items() if name != "url"}
    assert api("POST", "/agents", wish).status_code == 400


def test_loopback_is_refused_where_nobody_allowed_it(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(load_config(), "push_networks", "")
    for host in ("127.0.0.1", "127.1", "2130706433", "localhost", "[::1]"):
        answer = api("POST", "/agents", {**ANN, "url": f"http://{host}:9/"})
        assert answer.status_code == 400, host
        assert "OPSCORE_PUSH_NETWORKS" in answer.json()["detail"] + str(answer.json()["errors"])


def test_name_that_is_not_known_yet_is_registered(api: Api) -> None:
    answer = api("POST", "/agents", {**ANN, "url": "http://no-such-host.invalid/"})
    assert answer.status_code == 201


def test_agent_that_is_pushed_to_begins_no_session(api: Api) -> None:
    api("POST", "/agents", ANN)
    answer = api("POST", "/agents/ann/sessions", {})
    assert answer.status_code == 409
    assert not AgentSession.objects.exists()


def test_agent_of_another_kind_has_no_secret(api: Api) -> None:
    api("POST", "/agents", {"name": "bob", "kind": "remote"})
    assert api("POST", "/agents/bob/secret").status_code == 409


@pytest.mark.parametrize("text", ["oa_", "oa_1_x_1_y", f"oa_1_{'0' * 32}_1_{'0' * 64}"])
def test_keys_of_attempts_cannot_be_made_up(api: Api, text: str) -> None:
    forged = Api(text, api.client)
    path = f"/tasks/{uuid4()}/report"
    assert forged("POST", path, {}).status_code == 401


def test_key_of_an_attempt_in_a_project_that_is_gone_is_refused(api: Api) -> None:
    gone = Project.objects.create(slug="gone")
    text = attempt_tokens.issue(gone.pk, uuid4(), 1)
    gone.delete()
    assert Api(text, api.client)("POST", f"/tasks/{uuid4()}/report", {}).status_code == 401


def test_no_stored_key_can_have_the_scope_of_an_attempt(project: Project) -> None:
    from opscore.errors import InvalidError

    with pytest.raises(InvalidError):
        keys.create(project, "x", [attempt_tokens.SCOPE])
