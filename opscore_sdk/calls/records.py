"""What became of runs, tasks and agents: attempts, events, graphs, timelines, sessions, versions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from opscore_sdk.asking import Talk, ask, part, rows
from opscore_sdk.wire import Approval, Attempt, Event


def attempts(task_id: str) -> Talk[list[Attempt]]:
    """Return every try of a task, oldest first, the present or successful one last."""
    answer = yield from ask("GET", f"/tasks/{part(task_id)}/attempts")
    return [Attempt.read(row) for row in answer["attempts"]]


def task_events(task_id: str, *, limit: int = 50) -> Talk[list[Event]]:
    """Return the newest events of a task."""
    return (yield from rows(f"/tasks/{part(task_id)}/events", Event.read, limit, {}))


def run_events(run_id: str, *, limit: int = 50) -> Talk[list[Event]]:
    """Return the newest events of a run and its tasks."""
    return (yield from rows(f"/runs/{part(run_id)}/events", Event.read, limit, {}))


def agent_events(ref: str, *, limit: int = 50) -> Talk[list[Event]]:
    """Return the newest events of an agent."""
    return (yield from rows(f"/agents/{part(ref)}/events", Event.read, limit, {}))


def run_approvals(run_id: str, *, limit: int = 50) -> Talk[list[Approval]]:
    """Return what of a run waits for a person's decision."""
    return (yield from rows(f"/runs/{part(run_id)}/approvals", Approval.read, limit, {}))


def run_graph(run_id: str) -> Talk[Mapping[str, Any]]:
    """Return a run's `nodes` and `edges` with their present status, and its Mermaid text."""
    query = {"format": "mermaid"}
    answer: Mapping[str, Any] = yield from ask("GET", f"/runs/{part(run_id)}/graph", query=query)
    return answer


def run_timeline(run_id: str) -> Talk[Mapping[str, Any]]:
    """Return when each task of a run was ready, began and ended, and who tried it when."""
    answer: Mapping[str, Any] = yield from ask("GET", f"/runs/{part(run_id)}/timeline")
    return answer


def agent_sessions(ref: str, *, limit: int = 50) -> Talk[list[Mapping[str, Any]]]:
    """Return the lives of an agent, newest first."""
    return (yield from rows(f"/agents/{part(ref)}/sessions", _as_it_is, limit, {}))


def session(session_id: str) -> Talk[Mapping[str, Any]]:
    """Return one life of an agent: when it began, was heard of last and ended, and why."""
    answer: Mapping[str, Any] = yield from ask("GET", f"/sessions/{part(session_id)}")
    return answer


def pool(host: str, spec: str) -> Talk[Mapping[str, Any]]:
    """Return what a host offers under this name, and how many agents of it are kept."""
    answer: Mapping[str, Any] = yield from ask("GET", f"/hosts/{part(host)}/specs/{part(spec)}")
    return answer


def versions(workflow: str, *, limit: int = 50) -> Talk[list[Mapping[str, Any]]]:
    """Return the versions of a workflow, newest first, without their definitions."""
    return (yield from rows(f"/workflows/{part(workflow)}/versions", _as_it_is, limit, {}))


def version(workflow: str, version: str) -> Talk[Mapping[str, Any]]:
    """Return a version with its definition: by its author's name for it, number, or `latest`."""
    path = f"/workflows/{part(workflow)}/versions/{part(version)}"
    answer: Mapping[str, Any] = yield from ask("GET", path)
    return answer


def _as_it_is(row: Mapping[str, Any]) -> Mapping[str, Any]:
    return row
