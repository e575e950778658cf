"""How busy agents are: counted by the floor above, which knows tasks, and asked for here."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from uuid import UUID

from agents.models import Agent

Counter = Callable[[Collection[UUID]], Mapping[UUID, int]]


def _none(agent_ids: Collection[UUID]) -> Mapping[UUID, int]:
    return {}


_counter: Counter = _none


def counted_by(counter: Counter) -> None:
    """Set who counts: takes ids of agents, returns how many tasks each is running."""
    global _counter  # noqa: PLW0603 - set once, when the floor above is loaded
    _counter = counter


def running(agents: Collection[Agent]) -> dict[UUID, int]:
    """Return how many tasks each agent is running now; one query for all of them."""
    counts = _counter([agent.pk for agent in agents]) if agents else {}
    return {agent.pk: counts.get(agent.pk, 0) for agent in agents}


def shown_status(agent: Agent, tasks: int) -> str:
    """Return the status that people see: an active agent with tasks is `busy`."""
    return "busy" if agent.status == "active" and tasks else agent.status
