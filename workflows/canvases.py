"""Durable canvases: a plain Celery canvas becomes a run, in one line.

run = run_canvas(chain(fetch.s(url), group(parse.s(), index.s()), report.s()))
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any
from uuid import UUID

from agents.models import Agent
from agents.registry import offered_specs
from opscore.errors import InvalidError, NotFoundError, OpsCoreError
from opscore.models import Project
from tasks.models import Run
from tasks.results import outputs_of
from tasks.submission import start_run
from workflows import celery_tasks
from workflows.celery_tasks import adopt, durable
from workflows.signatures import graph_of

#: Between two looks at a run that somebody waits for: from this to that.
_LOOK_S = (0.02, 0.5)


class CanvasFailedError(OpsCoreError):
    """The canvas did not complete; `error` says which task, and why."""

    status = 409
    code = "canvas_failed"

    def __init__(self, run: Run) -> None:
        self.run_id = run.id
        self.error: dict[str, Any] = run.error or {}
        where = f" in {self.error['task']}" if "task" in self.error else ""
        why = ": ".join(str(self.error.get(name, "")) for name in ("type", "message"))
        super().__init__(f"The canvas {run.workflow} {run.status}{where}. {why}")


def run_canvas(
    canvas: Mapping[str, Any],
    *,
    name: str = "canvas",
    project: Project | str = "default",
    priority: int = 5,
    actor: str = "",
) -> Run:
    """Start a Celery canvas of durable tasks as a run, and return the run at once.

    Every step is a task of the run: recorded exactly once, given to another agent when its
    own one dies. Joins an open transaction: a rollback leaves no trace, a commit starts it.
    Raises InvalidError with every problem (an unknown task, an option or argument that cannot
    be kept) and its path in the canvas, TooLargeError, NotFoundError for an unknown project.
    """
    owner = _project(project)
    graph = graph_of(canvas, known=_known(owner), traits=celery_tasks.traits)
    return start_run(
        owner, graph, inputs={}, workflow=_checked_name(name), priority=priority, actor=actor
    )


def canvas_result(run: Run | UUID | str, timeout_s: float | None = 60.0) -> Any:
    """Wait for a canvas and return what it returned: of a group, the list of results.

    None waits for ever. Raises TimeoutError (the run goes on), CanvasFailedError when it
    failed or was cancelled, NotFoundError. Not for the transaction that starts the run: it
    begins with the commit.
    """
    run_id = run.id if isinstance(run, Run) else run
    give_up_at = None if timeout_s is None else time.monotonic() + timeout_s
    delay_s, longest_s = _LOOK_S
    while (found := _find(run_id)).completed_at is None:
        if give_up_at is not None and time.monotonic() > give_up_at:
            raise TimeoutError(f"The canvas {found.workflow} {run_id} is still {found.status}.")
        time.sleep(delay_s)
        delay_s = min(delay_s * 1.5, longest_s)
    if found.status != "completed":
        raise CanvasFailedError(found)
    return outputs_of(found)["result"]


def _find(run_id: UUID | str) -> Run:
    try:
        return Run.objects.defer("inputs").get(id=UUID(str(run_id)))
    except (Run.DoesNotExist, ValueError):
        raise NotFoundError(f"There is no run {run_id}.") from None


def _known(project: Project) -> set[str]:
    """Return what somebody is able to do: this process, agents, and what hosts offer."""
    known = celery_tasks.names()
    for words in Agent.objects.filter(project=project).values_list("capabilities", flat=True):
        known.update(words)
    for spec in offered_specs(project).values():
        known.update(spec["capabilities"])
    return known


def _project(project: Project | str) -> Project:
    if isinstance(project, Project):
        return project
    found = Project.objects.filter(slug=project).first()
    if found is None:
        raise NotFoundError(f"There is no project {project}.")
    return found


def _checked_name(name: str) -> str:
    if not 0 < len(name) <= 100 or not name.isprintable():
        raise InvalidError("The name of a canvas is a line of 1 to 100 characters.")
    return name


__all__ = ["CanvasFailedError", "adopt", "canvas_result", "durable", "run_canvas"]
