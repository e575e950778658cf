"""Agents that poll for `dig`, and tasks that wish for some of them."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from agents import registry, sessions
from agents.models import Agent, AgentSession
from opscore.database import query
from tasks.claims import poll
from tasks.flow import Flow
from tasks.graph import Node
from tasks.models import Task
from tasks.retries import RetryPolicy
from tasks.submission import submit_task
from tasks.why import explain
from tests.engine.conftest import Bench


def agent(bench: Bench, name: str, *labels: str, **fields: Any) -> Agent:
    made = registry.register(
        bench.project, name=name, kind="remote", capabilities=["dig"], labels=labels, **fields
    )[0]
    sessions.ready(sessions.start(made).pk)
    return made


def session_of(one: Agent) -> UUID:
    return AgentSession.objects.get(agent=one, ended_at=None).pk


def ask(bench: Bench, *, retry: RetryPolicy | None = None, **wishes: Any) -> Task:
    made = Node("hole", "dig", flow=Flow(**wishes), retry=retry or RetryPolicy())
    return submit_task(bench.project, made)


def takes(one: Agent, limit: int = 1) -> list[UUID]:
    return [task.id for task in poll(session_of(one), limit)]


def lapse(*tasks: Task) -> None:
    """Let the patience of addressed tasks pass."""
    query(
        "UPDATE tasks_task SET for_until = now() WHERE id = ANY(%(ids)s::uuid[])",
        {"ids": [task.pk for task in tasks]},
    )


def reason(task: Task) -> tuple[str, str]:
    task.refresh_from_db()
    found = explain(task).reasons[0]
    return found.code, found.message
