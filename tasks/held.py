"""A claimed attempt: what its holder needs, read from the statement that claimed it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any
from uuid import UUID

from opscore.database import query
from tasks import confidential
from tasks.expressions import render
from tasks.flow import Flow
from tasks.payloads import load
from tasks.retries import RetryPolicy
from tasks.transitions import work

#: Names that a task's row may give its expressions.
NAMES = ("item", "index", "iteration", "previous", "error", "result")


@dataclass(frozen=True)
class Claimed:
    """One attempt that the caller now holds, with all that it needs."""

    id: UUID
    run_id: UUID
    project_id: int
    key: str
    uses: str
    capability: str
    requires: Sequence[str]
    queue: str
    attempt: int
    fence: int
    """Must be given with every report; an older one is refused."""
    tried_before: int
    """Attempts of earlier iterations, and of what is now caught."""
    priority: int
    timeout_s: float | None
    template: dict[str, Any]
    outputs_template: dict[str, Any] | None
    retry: RetryPolicy
    flow: Flow
    names: Mapping[str, Any]
    """What its expressions may read beside inputs, tasks and run: item, iteration, error, …"""
    scope: Mapping[str, Any]
    """What expressions may refer to: inputs, tasks, run, and the names."""

    @property
    def inputs(self) -> dict[str, Any]:
        """The task's `with`, expressions evaluated. Raises ExpressionError, SealedError."""
        scope = {**self.scope, "secrets": self._secrets} if self._secrets else self.scope
        rendered: dict[str, Any] = render(self.template, scope)
        return rendered

    @cached_property
    def _secrets(self) -> Mapping[str, str]:
        # What others than agents get is kept in rows that people read.
        return confidential.values_for(self.project_id, self.template) if self._is_work else {}

    @property
    def _is_work(self) -> bool:
        return self.uses == "agent"

    @property
    def tries(self) -> int:
        """Which attempt this is of the present work: each iteration, and a `catch`, begins anew."""
        return self.attempt - self.tried_before

    @property
    def turn(self) -> str:
        """Which work of the task this is: '' for the first, an iteration, or `catch`."""
        if "caught" in self.names:
            return "catch"
        iteration = self.names.get("iteration", 1)
        return "" if iteration == 1 else str(iteration)

    @property
    def traceparent(self) -> str:
        """W3C trace context: a trace for each run, a span for each attempt."""
        span = hashlib.sha256(f"{self.id}/{self.fence}".encode()).hexdigest()[:16]
        return f"00-{self.run_id.hex}-{span}-01"

    def as_dict(self) -> dict[str, Any]:
        """Return what an executor over HTTP gets."""
        return {
            "id": str(self.id),
            "run_id": str(self.run_id),
            "key": self.key,
            "capability": self.capability,
            "attempt": self.tries,
            "fence": self.fence,
            "priority": self.priority,
            "timeout_s": self.timeout_s,
            "inputs": self.inputs,
            "idempotency_key": f"{self.id}/{self.turn}" if self.turn else str(self.id),
            "traceparent": self.traceparent,
        }


def held(task_id: UUID, fence: int, *, waiting: bool = False) -> Claimed | None:
    """Return the running attempt that `fence` holds; None when the fence is old.

    `waiting`: also a task that waits. Its fence is the platform's own, never a client's.
    """
    rows = query(work.HELD, {"id": task_id, "fence": fence, "waiting": waiting})
    return claimed(rows[0]) if rows else None


def claimed(row: Mapping[str, Any]) -> Claimed:
    """Read one row of a claim; loads results that are kept by reference."""
    upstream = row["upstream"] or {}
    tasks = {
        key: {
            "result": load(task["result"], task["result_ref"]),
            "outputs": task["outputs"],
            "status": task["status"],
            "error": task["error"],
        }
        for key, task in upstream.items()
    }
    names = dict(row["names"])
    if "repeat" in row["flow"]:
        names = {"iteration": 1, "previous": None, **names}
    if "undo_of" in names:
        names["result"] = tasks[names["undo_of"]]["result"]
    return Claimed(
        id=row["id"],
        run_id=row["run_id"],
        project_id=row["project_id"],
        key=row["key"],
        uses=row["uses"],
        capability=row["capability"],
        requires=row["requires"],
        queue=row["queue"],
        attempt=row["attempt"],
        fence=row["fence"],
        tried_before=row["tried_before"],
        priority=row["priority"],
        timeout_s=row["timeout_s"],
        template=row["inputs"],
        outputs_template=row["outputs_template"],
        retry=RetryPolicy.from_dict(row["retry"]),
        flow=Flow.from_dict(row["flow"]),
        names=names,
        scope={
            **{name: names[name] for name in NAMES if name in names},
            "inputs": row["run_inputs"],
            "tasks": tasks,
            "run": {"id": str(row["run_id"]), "workflow": row["workflow"]},
        },
    )
