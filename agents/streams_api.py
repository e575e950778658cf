"""Server-sent events about agents."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.urls import path
from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.response import Response

from agents import workload
from agents.models import Agent
from opscore.api.streams import STREAM, Picture, Source, StreamEndpoint, Topic, pictured

#: Agents that one stream shows, the newest ones.
_MOST = 1000


def _agents(known: Mapping[int, Picture | None]) -> Mapping[int, Picture]:
    return {project: pictured(_shown(project)) for project in known}


def _shown(project: int) -> list[dict[str, Any]]:
    agents = list(Agent.objects.filter(project=project).order_by("-id")[:_MOST])
    counts = workload.running(agents)
    return [
        {
            "type": "agent",
            "id": agent.pk,
            "name": agent.name,
            "kind": agent.kind,
            "status": workload.shown_status(agent, counts[agent.pk]),
            "running_tasks": counts[agent.pk],
            "paused": agent.paused,
            "reason": agent.reason,
            "host": agent.host,
            "restarts": agent.restarts,
        }
        for agent in agents
    ]


AGENTS = Source(_agents)


class AgentStream(StreamEndpoint):
    """What happens to the project's agents, as it happens."""

    def topic(self, **kwargs: Any) -> Topic:
        """Return the agents of the project."""
        return Topic(AGENTS, self.project.pk)

    @extend_schema(responses=STREAM)
    def get(self, request: Request) -> Response:
        """Stream the newest 1,000 agents (server-sent events): a snapshot, then changes."""
        return self.stream()


urlpatterns = [path("agents/stream", AgentStream.as_view())]
