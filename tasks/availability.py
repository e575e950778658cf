"""Which agents could take a task: what keeps each from it, who has it, and when one will be free."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.utils import timezone

from agents.candidates import Candidate, candidates
from agents.models import AgentSession
from opscore.database import Row, query
from tasks.models import Task
from tasks.reasons import SHOWN, Reason, listed


def obstacles(task: Task) -> Iterator[Reason]:
    """Say why no agent has taken a queued task yet."""
    found = _candidates(task)
    able = [one for one in found if one.able]
    if not able:
        yield _nobody(task, found)
        return
    held = _held([one.session_id for one in able if one.session_id])
    if len({row["session_id"] for row in held}) < len(able):
        yield _free(task, [one for one in able if one.session_id not in _sessions(held)])
        return
    yield _all_busy(able, held)
    if ahead := _ahead(task):
        yield Reason("queue", f"{ahead} tasks of the same queue come before it.")


def _candidates(task: Task) -> list[Candidate]:
    if task.uses == "end":
        return []
    return candidates(task.project_id, task.capability, task.requires)


def _nobody(task: Task, found: Sequence[Candidate]) -> Reason:
    if not found:
        return Reason("no_agent", f"No agent offers {task.capability!r}.")
    fitting = [one for one in found if not one.lacks]
    if not fitting:
        nearest = min(found, key=lambda one: (len(one.lacks), one.session_id is None, one.name))
        return Reason(
            "no_agent",
            f"No agent with {task.capability!r} has all the labels that it requires; the nearest "
            f"one, {nearest.name}, lacks {', '.join(nearest.lacks)}.",
            refs={"agents": [str(nearest.id)], "lacks": list(nearest.lacks)},
        )
    refs = {"agents": [str(one.id) for one in fitting[:SHOWN]]}
    if all(one.paused for one in fitting):
        names = listed([one.name for one in fitting])
        return Reason(
            "agents_paused", f"Every agent that could take it is paused: {names}.", None, refs
        )
    names = listed([_state(one) for one in fitting])
    return Reason("agents_down", f"No agent that could take it is at work: {names}.", None, refs)


def _state(one: Candidate) -> str:
    if one.paused:
        return f"{one.name} is paused"
    said = f" ({one.reason.splitlines()[0][:120]})" if one.reason else ""
    return f"{one.name} is {one.status}{said}"


def _free(task: Task, free: Sequence[Candidate]) -> Reason:
    """Its hint is on the way, or is sent again soon: see REHINT."""
    names = listed([one.name for one in free])
    hints = f"; it was hinted {task.hints} times again" if task.hints else ""
    return Reason("starting", f"Free for it, and about to take it: {names}{hints}.")


def _all_busy(able: Sequence[Candidate], held: Sequence[Row]) -> Reason:
    names = {one.session_id: one.name for one in able}
    work = listed([f"{names[row['session_id']]} has {row['key']}" for row in held])
    return Reason(
        "all_busy",
        f"Every agent that could take it is busy: {work}.",
        refs={"tasks": [str(row["id"]) for row in held[:SHOWN]]},
    )


_HELD = """
SELECT id, key, session_id, capability,
       extract(epoch FROM now() - started_at)::float AS for_s
  FROM tasks_task WHERE status = 'running' AND session_id = ANY(%(sessions)s::uuid[])
 ORDER BY started_at
"""


def _held(session_ids: Sequence[UUID]) -> list[Row]:
    return query(_HELD, {"sessions": list(session_ids)})


def _sessions(held: Sequence[Row]) -> set[UUID]:
    return {row["session_id"] for row in held}


# The order in which tasks are promised to be taken: priority, then age.
_AHEAD = """
SELECT count(*)::int AS n FROM tasks_task t
 WHERE t.project_id = %(project)s AND t.capability = %(capability)s AND t.status = 'queued'
   AND t.queue = %(queue)s AND (t.priority, %(ready)s) > (%(priority)s, t.ready_at)
"""


def _ahead(task: Task) -> int:
    params = {
        "project": task.project_id,
        "capability": task.capability,
        "queue": task.queue,
        "priority": task.priority,
        "ready": task.ready_at,
    }
    count: int = query(_AHEAD, params)[0]["n"]
    return count


# Of the last tasks of the project, not of all times: the answer must not cost more as years pass.
_DURATION = """
SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY s)::float AS median_s FROM (
  SELECT extract(epoch FROM completed_at - started_at) AS s
    FROM (SELECT * FROM tasks_task WHERE project_id = %(project)s
           ORDER BY id DESC LIMIT 2000) recent
   WHERE capability = %(capability)s AND status = 'completed' LIMIT 50) durations
"""


def expected_start(task: Task) -> datetime | None:
    """Estimate when a queued task starts, by the last durations of its capability.

    None without history or without an agent that could take it. Agents that do several tasks at
    once are counted as one place, so such an estimate is late rather than early.
    """
    able = [one for one in _candidates(task) if one.able]
    if not able:
        return None
    median_s = query(_DURATION, {"project": task.project_id, "capability": task.capability})[0]
    if median_s["median_s"] is None:
        return None
    held = _held([one.session_id for one in able if one.session_id])
    return timezone.now() + timedelta(
        seconds=wait_s(
            median_s["median_s"], len(able), [row["for_s"] for row in held], _ahead(task)
        )
    )


def wait_s(median_s: float, places: int, busy_for_s: Sequence[float], ahead: int) -> float:
    """Return how long a task waits when `ahead` others come before it on so many places.

    Each place works for `median_s` on a task; those at work have done so for `busy_for_s`.
    """
    free_at = sorted(max(median_s - spent, 0.0) for spent in busy_for_s)[:places]
    free_at = sorted([0.0] * (places - len(free_at)) + free_at)
    rounds, rank = divmod(ahead, places)
    return free_at[rank] + rounds * median_s


def holder(task: Task) -> Reason:
    """Say which agent has or had the task, and why that one."""
    sessions = AgentSession.objects.select_related("agent")
    session = sessions.filter(pk=task.session_id).first() if task.session_id else None
    if session is None:
        return Reason("agent", "The agent that had it is not known any more.")
    agent = session.agent
    labels = f" and the labels {', '.join(task.requires)}" if task.requires else ""
    waited = _waited(task)
    refs: dict[str, Any] = {"agent": str(agent.pk), "session": str(session.pk)}
    return Reason(
        "agent",
        f"{agent.name} took it{waited}: it has {task.capability or 'the platform'!r}{labels} and was "
        "the first of its kind to be free.",
        task.lease_until if task.status == "running" else None,
        refs,
    )


def _waited(task: Task) -> str:
    if task.ready_at is None or task.started_at is None or task.started_at < task.ready_at:
        return ""
    return f" {(task.started_at - task.ready_at).total_seconds():.3f} s after it was ready"
