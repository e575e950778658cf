"""Short words for tests of the constructs."""

from __future__ import annotations

from dataclasses import fields as fields_of
from datetime import timedelta
from typing import Any

from django.db.models import F

from agents.handlers import Context, HandlerError
from tasks import reconcile
from tasks.flow import Flow
from tasks.graph import Graph, Node
from tasks.models import Run, Task
from tasks.submission import start_run
from tests.engine.conftest import Bench

_FLOW = {each.name for each in fields_of(Flow)}


def node(key: str, *needs: str, **fields: Any) -> Node:
    flow = {name: fields.pop(name) for name in list(fields) if name in _FLOW}
    return Node(
        **{"key": key, "capability": "work", "needs": needs, "flow": Flow(**flow), **fields}
    )


def begin(bench: Bench, *nodes: Node, **fields: Any) -> Run:
    outputs, epilogue = fields.pop("outputs", None), fields.pop("epilogue", ())
    graph = Graph.of(nodes, outputs, epilogue)
    return start_run(bench.project, graph, **{"inputs": {}, **fields})


def statuses(run: Run) -> dict[str, str]:
    return dict(run.tasks.values_list("key", "status"))


def task_of(run: Run, key: str) -> Task:
    return run.tasks.get(key=key)


def refuse(context: Context) -> Any:
    raise HandlerError("no luck", type="unlucky")


def pass_time(run: Run) -> None:
    """Move the rows' due times, not a clock."""
    hour = timedelta(hours=1)
    run.tasks.filter(wake_at__isnull=False).update(wake_at=F("wake_at") - hour)
    run.tasks.filter(lease_until__isnull=False).update(
        lease_until=F("lease_until") - hour, started_at=F("started_at") - hour
    )
    reconcile.reconcile()
