"""Server-sent events about runs and tasks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from django.urls import path
from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.response import Response

from opscore.api.streams import STREAM, Picture, Source, StreamEndpoint, Topic, encode, pictured
from opscore.database import query
from tasks.control_api import run_of, task_of

_COLUMNS = """t.id, t.run_id, t.key, t.uses, t.capability, t.status, t.attempt, t.losses,
       t.waits_for, t.session_id, t.error, t.ready_at, t.started_at, t.completed_at, t.wake_at"""
_RUNS = """
SELECT id, workflow, version, status, phase, error, created_at, completed_at
  FROM tasks_run WHERE id = ANY(%(ids)s::uuid[])
"""
# The rows of a large run are read only when one of them has changed. Order does not count.
_VERSIONS = """
SELECT run_id, count(*) || '.' || sum(hashtextextended(
         concat_ws(' ', id, status, attempt, losses, waits_for, session_id, wake_at), 0)) AS version
  FROM tasks_task WHERE run_id = ANY(%(ids)s::uuid[]) AND uses <> 'end' GROUP BY run_id
"""
_TASKS_OF = f"""
SELECT {_COLUMNS} FROM tasks_task t
 WHERE t.run_id = ANY(%(ids)s::uuid[]) AND t.uses <> 'end' ORDER BY t.number
"""  # noqa: S608 - constants
_TASKS = f"""
SELECT {_COLUMNS}, p.fraction, p.message FROM tasks_task t
  LEFT JOIN tasks_taskprogress p ON p.task_id = t.id
 WHERE t.id = ANY(%(ids)s::uuid[])
"""  # noqa: S608 - constants


def _runs(known: Mapping[UUID, Picture | None]) -> Mapping[UUID, Picture]:
    """Return the pictures of runs: each run itself, then its tasks."""
    runs = {row["id"]: encode({"type": "run", **row}) for row in query(_RUNS, {"ids": list(known)})}
    versions = {row["run_id"]: row["version"] for row in query(_VERSIONS, {"ids": list(runs)})}
    found: dict[UUID, Picture] = {}
    for id_, text in runs.items():
        before = known[id_]
        if before is not None and before.mark == versions.get(id_):
            found[id_] = _with_run(before, id_, text)
    tasks = _tasks_of([id_ for id_ in runs if id_ not in found])
    for id_, texts in tasks.items():
        found[id_] = Picture({str(id_): runs[id_], **texts}, mark=versions.get(id_))
    return found


def _with_run(before: Picture, id_: UUID, text: str) -> Picture:
    if before.items[str(id_)] == text:
        return before
    return Picture({**before.items, str(id_): text}, mark=before.mark)


def _tasks_of(ids: list[UUID]) -> dict[UUID, dict[str, str]]:
    found: dict[UUID, dict[str, str]] = {id_: {} for id_ in ids}
    for row in query(_TASKS_OF, {"ids": ids}) if ids else ():
        found[row["run_id"]][str(row["id"])] = encode({"type": "task", **row})
    return found


def _tasks(known: Mapping[UUID, Picture | None]) -> Mapping[UUID, Picture]:
    rows = query(_TASKS, {"ids": list(known)})
    return {row["id"]: pictured([{"type": "task", **row}]) for row in rows}


RUNS = Source(_runs)
TASKS = Source(_tasks)


class RunStream(StreamEndpoint):
    """What happens in one run, as it happens."""

    def topic(self, **kwargs: Any) -> Topic:
        """Return the run."""
        return Topic(RUNS, run_of(self, kwargs["run_id"]).pk)

    @extend_schema(responses=STREAM)
    def get(self, request: Request, run_id: UUID) -> Response:
        """Stream the run and its tasks (server-sent events): a snapshot, then changes."""
        return self.stream(run_id=run_id)


class TaskStream(StreamEndpoint):
    """What happens to one task, as it happens."""

    def topic(self, **kwargs: Any) -> Topic:
        """Return the task."""
        return Topic(TASKS, task_of(self, kwargs["task_id"]).pk)

    @extend_schema(responses=STREAM)
    def get(self, request: Request, task_id: UUID) -> Response:
        """Stream the task with its progress (server-sent events): a snapshot, then changes."""
        return self.stream(task_id=task_id)


urlpatterns = [
    path("runs/<uuid:run_id>/stream", RunStream.as_view()),
    path("tasks/<uuid:task_id>/stream", TaskStream.as_view()),
]
