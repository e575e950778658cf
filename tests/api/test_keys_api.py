"""API keys over the API: made, listed, rotated with an overlap, revoked."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from opscore import keys
from opscore.ids import uuid7
from opscore.models import ApiKey, IdempotentAnswer, Project
from tests.api.conftest import Api

pytestmark = pytest.mark.django_db


def test_a_key_is_shown_once_and_works(api: Api, make_api: Callable[..., Api]) -> None:
    answer = api("POST", "/keys", {"name": "ci", "scopes": ["write", "read"]})
    assert answer.status_code == 201
    made = answer.json()
    assert answer["Location"] == f"/keys/{made['prefix']}"
    assert made["scopes"] == ["read", "write"]
    assert (made["state"], made["agent"], made["expires_at"]) == ("usable", None, None)
    other = make_api()
    other.key = made["key"]
    assert other("GET", "/agents").status_code == 200
    shown = api("GET", f"/keys/{made['prefix']}")
    assert shown.json()["last_used_at"] is not None
    assert made["key"].split("_", 2)[2] not in shown.content.decode()
    assert "key" not in shown.json()
    assert made["prefix"] in {key["prefix"] for key in api("GET", "/keys").json()["results"]}
    assert [key["name"] for key in api("GET", "/keys?name=ci").json()["results"]] == ["ci"]


@pytest.mark.parametrize(
    ("body", "path"),
    [
        ({"name": ""}, "name"),
        ({"name": "x" * 101}, "name"),
        ({"name": "x", "scopes": ["root"]}, "scopes"),
        ({"name": "x", "scopes": []}, "scopes"),
        ({"name": "x", "expires_at": "2001-01-01T00:00:00Z"}, "expires_at"),
        ({"name": "x", "scopes": ["read"], "agent": "echo-1"}, "scopes"),
        ({"name": "x", "colour": "red"}, "colour"),
    ],
)
def test_keys_that_make_no_sense_are_refused(
    api: Api, agent: dict[str, Any], body: dict[str, Any], path: str
) -> None:
    answer = api("POST", "/keys", body)
    assert answer.status_code == 400
    [problem] = answer.json()["errors"]
    assert problem["path"].startswith(path)
    assert ApiKey.objects.count() == 1


def test_a_key_of_an_agent_that_does_not_exist_is_not_made(api: Api) -> None:
    assert api("POST", "/keys", {"name": "x", "agent": "nobody"}).status_code == 404


def test_a_rotated_key_works_for_the_overlap_and_then_no_more(api: Api, project: Project) -> None:
    old, old_text = keys.create(
        project, "ci", ["read"], expires_at=timezone.now() + timedelta(days=30)
    )
    answer = api("POST", f"/keys/{old.prefix}/rotate", {"overlap_s": 600})
    assert answer.status_code == 201
    new = keys.verify(answer.json()["key"])
    assert (new.name, new.scopes, new.project) == ("ci", ["read"], project)
    assert new.expires_at is not None
    assert timedelta(days=29) < new.expires_at - timezone.now() < timedelta(days=31)
    ends = keys.verify(old_text).expires_at
    assert ends is not None
    assert timedelta(seconds=590) < ends - timezone.now() <= timedelta(seconds=600)
    ApiKey.objects.filter(pk=old.pk).update(expires_at=timezone.now())
    assert api("GET", f"/keys/{old.prefix}").json()["state"] == "expired"
    assert api("POST", f"/keys/{old.prefix}/rotate", {}).status_code == 409
    assert api("GET", "/keys/ci").json()["prefix"] == new.prefix


def test_rotation_without_overlap_ends_the_old_key_at_once(
    api: Api, make_api: Callable[..., Api]
) -> None:
    other = make_api("read")
    prefix = other.key.split("_")[1]
    assert api("POST", f"/keys/{prefix}/rotate", {"overlap_s": 0}).status_code == 201
    assert other("GET", "/agents").status_code == 401


def test_rotation_does_not_lengthen_what_expires_sooner(api: Api, project: Project) -> None:
    soon = timezone.now() + timedelta(seconds=60)
    old, _ = keys.create(project, "ci", ["read"], expires_at=soon)
    api("POST", f"/keys/{old.prefix}/rotate", {"overlap_s": 3600})
    assert ApiKey.objects.get(pk=old.pk).expires_at == soon


def test_the_key_of_an_agent_stays_bound_when_it_is_rotated(
    api: Api, agent: dict[str, Any]
) -> None:
    made = api("POST", "/keys", {"name": "own", "agent": "echo-1"}).json()
    assert made["agent"] == {"id": agent["id"], "name": "echo-1"}
    turned = api("POST", "/keys/own/rotate", {}).json()
    assert turned["agent"] == made["agent"]
    assert turned["scopes"] == ["agent"]
    listed = api("GET", f"/keys?agent={agent['id']}").json()["results"]
    assert [key["agent"]["name"] for key in listed] == ["echo-1", "echo-1"]


def test_a_revoked_key_is_refused_at_once(api: Api, make_api: Callable[..., Api]) -> None:
    other = make_api("read")
    prefix = other.key.split("_")[1]
    assert api("DELETE", f"/keys/{prefix}").status_code == 204
    assert api("DELETE", f"/keys/{prefix}").status_code == 204
    assert other("GET", "/agents").status_code == 401
    assert api("GET", f"/keys/{prefix}").json()["state"] == "revoked"
    assert api("DELETE", "/keys/nobody").status_code == 404


def test_keys_of_others_and_of_sessions_are_not_seen(api: Api, project: Project) -> None:
    foreign = Project.objects.create(slug="other")
    key, _ = keys.create(foreign, "foreign", ["admin"])
    text = keys.create_for_session(project, "of a session", uuid7())
    bound = text.split("_")[1]
    for prefix in (key.prefix, bound):
        assert api("GET", f"/keys/{prefix}").status_code == 404
        assert api("POST", f"/keys/{prefix}/rotate", {}).status_code == 404
        assert api("DELETE", f"/keys/{prefix}").status_code == 404
    assert len(api("GET", "/keys").json()["results"]) == 1


@pytest.mark.parametrize("scope", ["read", "write", "agent"])
def test_only_admins_see_or_make_keys(make_api: Callable[..., Api], scope: str) -> None:
    weak = make_api(scope)
    prefix = weak.key.split("_")[1]
    assert weak("GET", "/keys").status_code == 403
    assert weak("GET", f"/keys/{prefix}").status_code == 403
    assert weak("POST", "/keys", {"name": "more", "scopes": ["admin"]}).status_code == 403
    assert weak("POST", f"/keys/{prefix}/rotate", {}).status_code == 403
    assert weak("DELETE", f"/keys/{prefix}").status_code == 403
    assert ApiKey.objects.count() == 1


def test_text_of_a_key_is_not_kept_for_requests_that_are_sent_again(api: Api) -> None:
    for path, body in (("/keys", {"name": "ci"}), ("/keys/ci/rotate", {})):
        first = api("POST", path, body, Idempotency_Key="once")
        text = first.json()["key"]
        assert keys.verify(text).name == "ci"
        again = api("POST", path, body, Idempotency_Key="once")
        assert (again.status_code, again.json()["key"]) == (201, None)
        assert again.json()["prefix"] == first.json()["prefix"]
    assert IdempotentAnswer.objects.count() == 2
    kept = "".join(str(row.answer) for row in IdempotentAnswer.objects.all())
    assert "ok_" not in kept
