"""Admin of API keys: made, shown once, bound to an agent, rotated, revoked."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.sessions.models import Session
from django.test import Client
from django.urls import reverse

from opscore import keys
from opscore.models import ApiKey, Project
from tests.api.conftest import act

pytestmark = pytest.mark.django_db


def test_a_key_made_in_the_admin_is_shown_once_and_works(people: Client, project: Project) -> None:
    form = {"project": project.pk, "name": "made here", "scopes": ["read"]}
    made = people.post(reverse("admin:opscore_apikey_add"), form, follow=True)
    text = made.content.decode().split("<code>")[1].split("</code>")[0]
    key = keys.verify(text)
    assert (key.name, key.scopes) == ("made here", ["read"])
    page = people.get(reverse("admin:opscore_apikey_change", args=[key.pk]))
    assert text not in page.content.decode()
    assert text not in people.get(reverse("admin:opscore_apikey_changelist")).content.decode()
    act(people, "opscore_apikey", "revoke", str(key.pk))
    assert ApiKey.objects.get(pk=key.pk).revoked_at is not None


def test_a_key_of_an_agent_is_made_and_rotated_in_the_admin(
    people: Client, project: Project, agent: dict[str, Any]
) -> None:
    form = {"project": project.pk, "name": "own", "scopes": ["agent"], "agent": agent["id"]}
    wrong = people.post(reverse("admin:opscore_apikey_add"), {**form, "scopes": ["read"]})
    assert b"the scope agent, and no other" in wrong.content
    foreign = Project.objects.create(slug="other")
    wrong = people.post(reverse("admin:opscore_apikey_add"), {**form, "project": foreign.pk})
    assert b"belongs to another project" in wrong.content
    people.post(reverse("admin:opscore_apikey_add"), form, follow=True)
    key = ApiKey.objects.get(name="own")
    assert str(key.agent_id) == agent["id"]
    assert "echo-1" in people.get(reverse("admin:opscore_apikey_changelist")).content.decode()
    answer = act(people, "opscore_apikey", "rotate", str(key.pk))
    text = answer.content.decode().split("<code>")[1].split("</code>")[0]
    assert str(keys.verify(text).agent_id) == agent["id"]


def test_a_key_without_scope_is_not_made(people: Client, project: Project) -> None:
    form = {"project": project.pk, "name": "x"}
    assert people.post(reverse("admin:opscore_apikey_add"), form).status_code == 200
    assert not ApiKey.objects.exists()


def test_texts_of_keys_stand_in_no_cookie_and_no_session(people: Client, project: Project) -> None:
    rows = [str(keys.create(project, f"k{n}", ["read"])[0].pk) for n in range(30)]
    told = {"action": "rotate", "_selected_action": rows}
    answer = people.post(reverse("admin:opscore_apikey_changelist"), told)
    assert answer.content.decode().count("<code>ok_") == 30
    assert "no-store" in answer["Cache-Control"]
    made = people.post(
        reverse("admin:opscore_apikey_add"),
        {"project": project.pk, "name": "x", "scopes": ["read"]},
    )
    assert made.content.decode().count("<code>ok_") == 1
    assert not any("ok_" in cookie.value for cookie in people.cookies.values())
    assert not any("ok_" in str(session.get_decoded()) for session in Session.objects.all())
