"""Pause and resume through the API and the admin."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.urls import reverse

from agents.models import Agent
from opscore.models import Event, Project
from tests.api.conftest import agent, api, make_api

__all__ = ["agent", "api", "make_api"]

pytestmark = pytest.mark.django_db(transaction=True)


def test_agent_is_paused_and_resumed_as_often_as_one_likes(api: Any, agent: dict[str, Any]) -> None:
    assert agent["paused"] is False
    for verb, paused in (("pause", True), ("pause", True), ("resume", False), ("resume", False)):
        answer = api("POST", f"/agents/{agent['name']}/{verb}")
        assert (answer.status_code, answer.json()["paused"]) == (200, paused)
    events = Event.objects.filter(agent_id=agent["id"], kind__in=("agent.paused", "agent.resumed"))
    kinds = [(event.kind, event.actor) for event in events.order_by("id")]
    assert kinds == [("agent.paused", "test"), ("agent.resumed", "test")]


def test_pause_is_for_administrators_and_for_agents_that_exist(
    api: Any, make_api: Any, agent: dict[str, Any]
) -> None:
    assert make_api("read", "agent")("POST", "/agents/echo-1/pause").status_code == 403
    assert api("POST", "/agents/nobody/pause").status_code == 404
    assert Agent.objects.get().paused is False


@pytest.mark.parametrize(
    ("method", "path", "said"),
    [("POST", "/pause", "cannot be paused"), ("DELETE", "", "cannot be stopped")],
)
def test_platform_agent_is_left_alone(
    api: Any, project: Project, method: str, path: str, said: str
) -> None:
    Agent.objects.create(project=project, name="platform-1", kind="worker", spec="platform")
    answer = api(method, f"/agents/platform-1{path}")
    assert answer.status_code == 409
    assert said in answer.json()["detail"]


def test_operator_pauses_and_resumes_in_the_admin(agent: dict[str, Any]) -> None:
    User.objects.create_superuser("alice", password="a good password")
    client = Client()
    client.login(username="alice", password="a good password")
    page = reverse("admin:agents_agent_changelist")

    def act(action: str) -> str:
        form = {"action": action, "_selected_action": [agent["id"]]}
        return client.post(page, form, follow=True).content.decode()

    assert "echo-1 is paused." in act("pause")
    assert Agent.objects.get().paused
    shown = client.get(reverse("admin:agents_agent_change", args=[agent["id"]])).content.decode()
    assert ">paused<" in shown
    assert "echo-1 takes tasks again." in act("resume")
    assert not Agent.objects.get().paused
