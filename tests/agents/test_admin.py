"""What operators see of agents in the admin."""

from __future__ import annotations

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.urls import reverse

from agents import registry, sessions
from agents.models import AgentSession, Host, Pool
from opscore.database import query
from opscore.models import Project

pytestmark = pytest.mark.django_db


def begin(project: Project, name: str) -> AgentSession:
    return sessions.start(registry.register(project, name=name, kind="remote")[0])


def test_sessions_show_whether_they_live(project: Project) -> None:
    begin(project, "a-starting")
    sessions.ready(begin(project, "a-live").pk)
    sessions.end([begin(project, "an-ended").pk], "over")
    silent = begin(project, "a-silent")
    query(
        "UPDATE agents_agentsession SET seen_at = now() - interval '1 hour' WHERE id = %(id)s",
        {"id": silent.pk},
    )
    User.objects.create_superuser("alice", password="a good password")
    client = Client()
    client.login(username="alice", password="a good password")
    page = client.get(reverse("admin:agents_agentsession_changelist")).content.decode()
    for word in ("starting", "live", "ended", "silent"):
        assert page.count(f">{word}</span>") == 1, word


@pytest.mark.parametrize(
    ("said", "problem"),
    [
        ({"least": 1, "most": 3, "queue_wait_s": 2.5}, ""),
        ({"replicas": 2}, ""),
        ({"least": 1, "most": 3}, "A rule needs all three"),
        ({"least": 1, "most": 3, "queue_wait_s": 2, "replicas": 1}, "Either a number or a rule"),
        ({"least": 3, "most": 2, "queue_wait_s": 2}, "This is above the most"),
        ({"least": 1, "most": 9, "queue_wait_s": 2}, "0 to 4; empty"),
        ({"replicas": 5}, "0 to 4; empty"),
    ],
)
def test_pools_get_a_number_or_a_rule(
    project: Project, said: dict[str, float], problem: str
) -> None:
    offer = {"kind": "worker", "capabilities": ["x"], "labels": [], "max_replicas": 4}
    host = Host.objects.create(project=project, name="one", specs={"lint": offer})
    User.objects.create_superuser("alice", password="a good password")
    client = Client()
    client.login(username="alice", password="a good password")
    answer = client.post(
        reverse("admin:agents_pool_add"), {"host": host.pk, "spec": "lint", **said}
    )
    assert (answer.status_code, Pool.objects.count()) == ((200, 0) if problem else (302, 1))
    assert problem in answer.content.decode()
    if not problem:
        pool = Pool.objects.get()
        rule = {"min": 1, "max": 3, "queue_wait_s": 2.5} if "most" in said else None
        assert (pool.replicas, pool.autoscale) == (said.get("replicas"), rule)
        page = client.get(reverse("admin:agents_pool_change", args=[pool.pk])).content.decode()
        assert not rule or 'value="2.5"' in page
