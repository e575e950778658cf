"""What the agents' floor asks about tasks: who has how many, and how long they wait."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import LiteralString, cast
from uuid import UUID

from django.db.models import Count

from agents.models import AgentSession
from opscore.database import query
from tasks.models import Task
from tasks.transitions.fragments import RUNNABLE

_OLDEST: LiteralString = f"""
SELECT coalesce(extract(epoch FROM now() - min(t.ready_at)), 0)::float AS waited
  FROM tasks_task t JOIN tasks_run r ON r.id = t.run_id
 WHERE t.status = 'queued' AND t.project_id = %(project)s
   AND t.capability = ANY(%(capabilities)s::text[])
   AND t.requires <@ %(labels)s::varchar[] AND {RUNNABLE}"""  # noqa: S608 - constants

_BACKLOG = """
SELECT capability, count(*) FILTER (WHERE status = 'queued')::int AS queued,
       count(*) FILTER (WHERE status = 'running')::int AS running
  FROM tasks_task
 WHERE project_id = %(project)s AND status IN ('queued', 'running') AND capability <> ''
 GROUP BY capability
"""


class Workloads:
    """Answers from the rows of tasks."""

    def running(self, agent_ids: Collection[UUID]) -> Mapping[UUID, int]:
        """Return how many tasks each agent is running; agents with none are left out."""
        sessions = dict(
            AgentSession.objects.filter(agent__in=agent_ids, ended_at=None).values_list(
                "id", "agent_id"
            )
        )
        held = Task.objects.filter(status="running", session_id__in=sessions)
        counts: dict[UUID, int] = {}
        for row in held.values("session_id").annotate(tasks=Count("id")):
            agent_id = sessions[cast("UUID", row["session_id"])]
            counts[agent_id] = counts.get(agent_id, 0) + row["tasks"]
        return counts

    def backlog(self, project_id: int) -> Mapping[str, tuple[int, int]]:
        """Return queued and running tasks of each capability that has any."""
        rows = query(_BACKLOG, {"project": project_id})
        return {row["capability"]: (row["queued"], row["running"]) for row in rows}

    def oldest_wait(
        self, project_id: int, capabilities: Sequence[str], labels: Sequence[str]
    ) -> float:
        """Return the age in seconds of the oldest queued task that may run; 0: there is none."""
        params = {
            "project": project_id,
            "capabilities": list(capabilities),
            "labels": list(labels),
        }
        return float(query(_OLDEST, params)[0]["waited"])
