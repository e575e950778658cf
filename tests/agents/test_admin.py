"""What operators see of agents in the admin."""

from __future__ import annotations

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.urls import reverse

from agents import registry, sessions
from agents.models import AgentSession
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
