"""Which runs and tasks have ended, for those who wait for them: one look for all."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from uuid import UUID

from opscore.api.watching import WatchedEndpoint
from opscore.database import query
from opscore.errors import NotFoundError
from opscore.loading import load
from tasks.models import Run, Task
from tasks.serializers import RUN_SHOWN, run_shown, task_shown
from tasks.states import RUN, TASK

# Ids of runs and tasks are never the same, so they need not be told apart.
_ALIVE = """
SELECT id, project_id FROM tasks_task
 WHERE id = ANY(%(ids)s::uuid[]) AND NOT status = ANY(%(task)s)
UNION ALL
SELECT id, project_id FROM tasks_run
 WHERE id = ANY(%(ids)s::uuid[]) AND NOT status = ANY(%(run)s)
"""


def ended(ids: Sequence[UUID]) -> set[UUID]:
    """Return which of these tasks and runs have ended or are gone."""
    return set(ids) - set(_alive(ids))


def _alive(ids: Iterable[UUID]) -> dict[UUID, int]:
    """Return those that live, each with its project."""
    rows = query(
        _ALIVE, {"ids": list(ids), "task": sorted(TASK.terminal), "run": sorted(RUN.terminal)}
    )
    return {row["id"]: row["project_id"] for row in rows}


class _Watched(WatchedEndpoint):
    """An endpoint that can wait for the end of what it shows."""

    look = staticmethod(ended)

    def alive(self, **kwargs: Any) -> UUID | None:
        """Return the id in the path where the project has such a thing, and it lives."""
        [id_] = kwargs.values()
        return id_ if _alive([id_]).get(id_) == self.project.pk else None


class WatchedTask(_Watched):
    """An endpoint that can wait for the end of the task that it shows."""

    def ticket(self, shown: Mapping[str, Any]) -> UUID | None:
        """Return the task's id while it lives."""
        return None if shown["status"] in TASK.terminal else UUID(str(shown["id"]))

    def shown(self, ticket: UUID) -> Any:
        """Return everything about the task."""
        try:
            return task_shown(load(Task, id=ticket), self.only)
        except Task.DoesNotExist:
            raise NotFoundError(f"There is no task {ticket}.") from None


class WatchedRun(_Watched):
    """An endpoint that can wait for the end of the run that it shows."""

    shows = RUN_SHOWN

    def ticket(self, shown: Mapping[str, Any]) -> UUID | None:
        """Return the run's id while it lives."""
        return None if shown["status"] in RUN.terminal else UUID(str(shown["id"]))

    def shown(self, ticket: UUID) -> Any:
        """Return the run with its tasks."""
        try:
            return run_shown(load(Run, id=ticket), self.only)
        except Run.DoesNotExist:
            raise NotFoundError(f"There is no run {ticket}.") from None
