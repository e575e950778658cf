"""Which agent a task would have, on the in-memory platform: `sticky` and `prefers`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from opscore_sdk.testing.records import AgentRecord, TaskRecord

if TYPE_CHECKING:
    from opscore_sdk.testing.engine import Engine

#: Seconds that a task waits for an agent that it prefers, as on the real platform.
PATIENCE_S = 5.0


class Wishes:
    """Decides, when an agent asks for work, whether a task had better wait for another one.

    The real platform chooses when a task is queued; those who are there by then are served alike.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._bound: dict[tuple[str, frozenset[str], str], AgentRecord] = {}

    def allow(self, task: TaskRecord, agent: AgentRecord) -> bool:
        """Tell whether the agent may have the task; binds a sticky key that is free."""
        if not task.sticky:
            is_late = self._engine.now() - task.ready_at > PATIENCE_S
            return is_late or self._suits_best(task, agent)
        bound = self._bound.get(task.sticky_to)
        if bound is None or not self._engine.open_sessions(bound):
            if not self._suits_best(task, agent):
                return False
            bound = self._bound[task.sticky_to] = agent
        return bound is agent

    def _suits_best(self, task: TaskRecord, agent: AgentRecord) -> bool:
        mine = _liking(task, agent)
        return all(mine >= _liking(task, other) for other in self._free_for(task))

    def _free_for(self, task: TaskRecord) -> list[AgentRecord]:
        engine = self._engine
        return [
            agent
            for agent in engine.agents.values()
            if agent.takes_work
            and agent.can_do(task)
            and engine.is_free(agent)
            and engine.open_sessions(agent)
        ]


def _liking(task: TaskRecord, agent: AgentRecord) -> int:
    return sum(weight for label, weight in task.prefers.items() if label in agent.labels)
