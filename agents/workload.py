"""How busy agents are: known to the floor above, which knows tasks, and asked for here."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Protocol
from uuid import UUID

from agents.models import Agent


class Source(Protocol):
    """What the floor above knows of tasks."""

    def running(self, agent_ids: Collection[UUID]) -> Mapping[UUID, int]:
        """Return how many tasks each of these agents is running; those with none may be missing."""

    def oldest_wait(
        self, project_id: int, capabilities: Sequence[str], labels: Sequence[str]
    ) -> float:
        """Return for how many seconds the oldest queued task has waited that such an agent takes."""

    def backlog(self, project_id: int) -> Mapping[str, tuple[int, int]]:
        """Return how many tasks of each capability are queued and running; others may be missing."""


class _Nothing:
    """No floor above: there are no tasks."""

    def running(self, agent_ids: Collection[UUID]) -> Mapping[UUID, int]:
        return {}

    def oldest_wait(
        self, project_id: int, capabilities: Sequence[str], labels: Sequence[str]
    ) -> float:
        return 0.0

    def backlog(self, project_id: int) -> Mapping[str, tuple[int, int]]:
        return {}


_source: Source = _Nothing()


def known_by(source: Source) -> None:
    """Set who knows tasks."""
    global _source  # noqa: PLW0603 - set once, when the floor above is loaded
    _source = source


def running(agents: Collection[Agent]) -> dict[UUID, int]:
    """Return how many tasks each agent is running now; one query for all of them."""
    return running_of([agent.pk for agent in agents])


def running_of(agent_ids: Collection[UUID]) -> dict[UUID, int]:
    """Do what `running` does for ids."""
    counts = _source.running(agent_ids) if agent_ids else {}
    return {agent_id: counts.get(agent_id, 0) for agent_id in agent_ids}


def oldest_wait(project_id: int, capabilities: Sequence[str], labels: Sequence[str]) -> float:
    """Return for how many seconds the oldest queued task has waited that such an agent takes."""
    return _source.oldest_wait(project_id, capabilities, labels)


def backlog(project_id: int) -> Mapping[str, tuple[int, int]]:
    """Return how many tasks of each capability are queued and running now."""
    return _source.backlog(project_id)


def shown_status(agent: Agent, tasks: int) -> str:
    """Return the status that people see: an active agent with tasks is `busy`."""
    return "busy" if agent.status == "active" and tasks else agent.status
