"""Tasks whose body is a run of its own: `uses: workflow:<name>[@version]` and blocks of tasks."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from opscore.errors import ConflictError, InvalidError, NotFoundError
from tasks import subruns
from tasks.bodies import body
from tasks.graph import Graph
from tasks.held import Claimed
from tasks.submission import start_run
from tasks.waits import RefusedError
from workflows import registry
from workflows.definition import block_of


@body("workflow")
def run_workflow(task: Claimed, depth: int) -> None:
    """Start a run of the workflow that the task names; its `with` are the inputs."""
    name, _, version = task.uses.removeprefix("workflow:").partition("@")
    above = dict(subruns.begin(task, depth))
    try:
        run = registry.execute(
            above.pop("project"), name, inputs=task.inputs, version=version or None, **above
        )
    except (NotFoundError, InvalidError) as error:
        raise RefusedError(_told(error), type="sub_workflow") from None
    except ConflictError as error:
        raise RefusedError(str(error), type="concurrency") from None
    subruns.attend(task, run)


@body("block")
def run_block(task: Claimed, depth: int) -> None:
    """Start a run of the tasks inside this one; without `with` they see the outer inputs."""
    above = dict(subruns.begin(task, depth))
    graph = _graph_of(json.dumps(task.flow.block, sort_keys=True))
    run = start_run(
        above.pop("project"),
        graph,
        inputs=task.inputs if task.template else dict(task.scope["inputs"]),
        workflow=_inside(task),
        **above,
    )
    subruns.attend(task, run)


def _inside(task: Claimed) -> str:
    """Name a block's run after the workflow that it is in, so that a pause of that holds it."""
    return str(task.scope["run"]["workflow"])


@lru_cache(maxsize=256)
def _graph_of(text: str) -> Graph:
    data: Mapping[str, Any] = json.loads(text)
    return block_of(data).graph()


def _told(error: NotFoundError | InvalidError) -> str:
    problems = getattr(error, "problems", ())
    details = "; ".join(f"{problem.path}: {problem.message}" for problem in problems)
    return f"{error} {details}".strip()
