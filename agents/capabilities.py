"""Capabilities: which agents have each of them, how much there is to do, how it is routed."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from django.db.models import BooleanField, Exists, ExpressionWrapper, OuterRef, Q

from agents import workload
from agents.models import Agent, AgentSession, Route
from agents.routing import DEFAULT
from opscore.models import Project


@dataclass
class Capability:
    """One word, and all that is known of it."""

    name: str
    strategy: str = DEFAULT
    weights: dict[str, int] = field(default_factory=dict)
    agents: list[str] = field(default_factory=list)
    """Names of the agents that offer it."""
    live: int = 0
    """How many of them take work now."""
    queued: int = 0
    running: int = 0

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON."""
        return vars(self)


def capabilities(project: Project) -> list[Capability]:
    """Return every capability that an agent offers, a task waits for or a route names."""
    found: dict[str, Capability] = {}

    def of(name: str) -> Capability:
        return found.setdefault(name, Capability(name))

    for agent in _agents(project):
        for word in agent.capabilities:
            of(word).agents.append(agent.name)
            of(word).live += agent.live
    for route in Route.objects.filter(project=project):
        of(route.capability).strategy = route.strategy
        of(route.capability).weights = route.weights
    for word, (queued, running) in workload.backlog(project.pk).items():
        of(word).queued, of(word).running = queued, running
    return sorted(found.values(), key=lambda one: one.name)


def _agents(project: Project) -> Any:
    """Return the agents that may come back, each with whether it is `live` now."""
    is_live = Exists(
        AgentSession.objects.filter(
            agent=OuterRef("pk"), ended_at=None, ready_at__isnull=False, condemned=""
        )
    )
    mine = Agent.objects.filter(project=project).exclude(status="terminated", desired="stopped")
    live = is_live & Q(paused=False, desired="running") & ~Q(status="draining")
    return mine.annotate(live=ExpressionWrapper(live, BooleanField())).order_by("name")
