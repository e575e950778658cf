"""An agent inside the test's own process: the engine without Celery."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from uuid import UUID

import pytest

from agents import registry, runtime, sessions
from agents.models import AgentSession
from opscore.database import query
from opscore.models import Project
from tasks.models import Run, Task
from tests.engine.queue import Queue
from workflows.testing import Rehearsal


class Bench(Rehearsal):
    """Executes the queued tasks of a run one by one, as a worker would; no time passes."""

    def finish(self, run: Run | None = None) -> Run:
        """Execute whatever is queued until nothing is."""
        assert run is not None
        while task := run.tasks.filter(status="queued").order_by("number").first():
            self.step(task)
        run.refresh_from_db()
        return run

    def reborn(self, reason: str = "killed") -> AgentSession:
        """End the session as a dead process would, and start the next one."""
        sessions.end([self.session.id], reason)
        self.session = sessions.start(self.session.agent)
        runtime.begin(runtime.Life(self.session.id, "bench", self.handlers))
        return self.session


@pytest.fixture
def bench(project: Project) -> Iterator[Bench]:
    agent = registry.register(
        project, name="bench", kind="remote", capabilities=["work", "other"], labels=["gpu"]
    )[0]
    bench = Bench(project, sessions.start(agent))
    runtime.begin(runtime.Life(bench.session.id, "bench", bench.handlers))
    bench.does("work", lambda task: {"did": task.key})
    yield bench
    runtime.begin(None)


@pytest.fixture
def queue(project: Project) -> Iterator[Queue]:
    queue = Queue(project)
    yield queue
    queue.close()


def status_of(task_id: UUID) -> str:
    return str(Task.objects.values_list("status", flat=True).get(id=task_id))


def error_of(row: Task | Run) -> dict[str, Any]:
    assert row.error is not None
    return dict(row.error)


def transaction_number() -> int:
    return int(query("SELECT pg_current_xact_id()::text::bigint AS n", {})[0]["n"])
