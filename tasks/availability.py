"""Which agents could take a task: what keeps each from it, who has it, and when one will be free."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.utils import timezone

from agents.candidates import Candidate, candidates
from agents.models import AgentSession
from opscore.database import Row, query
from tasks.models import Sticky, Task
from tasks.reasons import SHOWN, Reason, listed
from tasks.survey import Survey
from tasks.transitions import turns


def obstacles(task: Task, survey: Survey) -> Iterator[Reason]:
    """Say why no agent has taken a queued task yet."""
    found = _candidates(task, survey)
    if task.for_agent is not None:
        yield _addressed(task, found, survey)
        return
    able = [one for one in found if one.able]
    if not able:
        yield _nobody(task, found)
        return
    held = _held_by(able, survey)
    tasks_of = Counter(row["session_id"] for row in held)
    if free := [one for one in able if tasks_of[one.session_id] < one.places]:
        yield _free(task, free)
        return
    yield _all_busy(able, held)
    yield from _in_line(_ahead(task, survey))


def _addressed(task: Task, found: Sequence[Candidate], survey: Survey) -> Reason:
    routing = task.routing or {}
    key = routing.get("sticky")
    one = next((one for one in found if one.id == task.for_agent), None)
    held = _held_by([one], survey) if one else []
    if one and one.paused:
        does = "is paused"
    elif one and one.draining:
        does = "is draining"
    else:
        does = f"has {listed([_task(row) for row in held])}" if held else "is about to take it"
    refs: dict[str, Any] = {
        "agent": str(task.for_agent),
        "tasks": [str(row["id"]) for row in held[:SHOWN]],
    }
    name = routing.get("agent", task.for_agent)
    if key:
        message = (
            f"It waits for {name} alone, which {does}: its sticky key {key!r} is bound to that "
            f"agent{_since(task, key, survey)}, for as long as it lives."
        )
        return Reason("sticky", message, refs={**refs, "key": key})
    return Reason(
        "addressed",
        f"It is addressed to {name}, which {does} ({_choice(routing)}); then anybody may take it.",
        task.for_until,
        refs,
    )


def _since(task: Task, key: str, survey: Survey) -> str:
    bound = survey.once(_binding, task.queue, key)
    return f" since {bound.bound_at:%Y-%m-%d %H:%M:%S} UTC" if bound else ""


def _binding(queue: str, key: str) -> Sticky | None:
    return Sticky.objects.filter(queue=queue, key=key).first()


def _choice(routing: Mapping[str, Any]) -> str:
    said = [f"strategy {routing['strategy']}"]
    if "score" in routing:
        labels = ", ".join(routing["prefers"]) or "none of its labels"
        said.append(f"preferred for {labels}: {routing['score']:+d}")
    return "; ".join(said)


def _candidates(task: Task, survey: Survey) -> list[Candidate]:
    if task.uses == "end":
        return []
    return survey.once(candidates, task.project_id, task.capability, tuple(task.requires))


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
    at_work = [one for one in fitting if one.session_id and not (one.paused or one.draining)]
    shut = [one for one in at_work if one.breaker == "open"]
    if shut:
        # The first that opens again takes it.
        until = min((one.breaker_until for one in shut if one.breaker_until), default=None)
        names = listed([_state(one) for one in fitting])
        return Reason("breaker", f"No agent may take it now: {names}.", until, refs)
    names = listed([_state(one) for one in fitting])
    return Reason("agents_down", f"No agent that could take it is at work: {names}.", None, refs)


def _state(one: Candidate) -> str:
    if one.paused:
        return f"{one.name} is paused"
    if one.breaker == "open":
        return f"the circuit breaker of {one.name} is {open_until(one.breaker_until)}"
    said = f" ({one.reason.splitlines()[0][:120]})" if one.reason else ""
    return f"{one.name} is {'draining' if one.draining else one.status}{said}"


def open_until(until: datetime | None) -> str:
    """Say how long a breaker stays open."""
    return f"open until {until:%FT%T%z}" if until else "open until it is closed by hand"


def _free(task: Task, free: Sequence[Candidate]) -> Reason:
    """Its hint is on the way, or is sent again soon: see REHINT."""
    names = listed([one.name for one in free])
    hints = f"; it was hinted {task.hints} times again" if task.hints else ""
    return Reason("starting", f"Free for it, and about to take it: {names}{hints}.")


def _all_busy(able: Sequence[Candidate], held: Sequence[Row]) -> Reason:
    names = {one.session_id: one.name for one in able}
    work = listed([f"{names[row['session_id']]} has {_task(row)}" for row in held])
    return Reason(
        "all_busy",
        f"Every agent that could take it is busy: {work}.",
        refs={"tasks": [str(row["id"]) for row in held[:SHOWN]]},
    )


def _task(row: Row) -> str:
    """Name a task so that it can be asked for: many have the key `task`."""
    return f"{row['key']} ({row['id']})"


_HELD = """
SELECT id, key, session_id, capability,
       extract(epoch FROM now() - started_at)::float AS for_s
  FROM tasks_task WHERE status = 'running' AND session_id = ANY(%(sessions)s::uuid[])
 ORDER BY started_at
"""


def _held_by(agents: Sequence[Candidate], survey: Survey) -> list[Row]:
    return survey.once(_held, tuple(one.session_id for one in agents if one.session_id))


def _held(session_ids: Sequence[UUID]) -> list[Row]:
    return query(_HELD, {"sessions": list(session_ids)})


#: What is held back is looked through so far; who stands further behind hears "more than".
_REACH = 10_000


@dataclass(frozen=True)
class Ahead:
    """What comes before a queued task in its queue."""

    tasks: int
    younger: int
    """Those of equal priority that became ready after it did: the turns of others."""

    def __str__(self) -> str:
        """Say how many, as far as they were counted."""
        return f"More than {_REACH}" if self.tasks > _REACH else str(self.tasks)


def _ahead(task: Task, survey: Survey) -> Ahead:
    return survey.once(_lines, survey.tasks).get(task.pk, Ahead(0, 0))


def _lines(tasks: Sequence[Task]) -> dict[UUID, Ahead]:
    rows = query(turns.PLACE, {"ids": [task.pk for task in tasks], "reach": _REACH})
    return {row["id"]: Ahead(row["hinted"] + row["held_back"], row["younger"]) for row in rows}


def _in_line(ahead: Ahead) -> Iterator[Reason]:
    if ahead.tasks:
        yield Reason("queue", f"{ahead} tasks of the same queue come before it.")
    if ahead.younger:
        yield Reason(
            "fair_share",
            f"{ahead.younger} of them became ready after it: tenants and their runs take turns, "
            "and its own have had more of them.",
        )


# Of the last tasks of the project, not of all times: the answer must not cost more as years pass.
_DURATION = """
SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY s)::float AS median_s FROM (
  SELECT extract(epoch FROM completed_at - started_at) AS s
    FROM (SELECT * FROM tasks_task WHERE project_id = %(project)s
           ORDER BY id DESC LIMIT 2000) recent
   WHERE capability = %(capability)s AND status = 'completed' LIMIT 50) durations
"""


def expected_start(task: Task, survey: Survey) -> datetime | None:
    """Estimate when a queued task starts, by the last durations of its capability.

    None without history or without an agent that could take it.
    """
    able = [one for one in _candidates(task, survey) if one.able]
    if task.for_agent and (task.routing or {}).get("sticky"):
        able = [one for one in able if one.id == task.for_agent]
    if not able:
        return None
    median_s = survey.once(_median_s, task.project_id, task.capability)
    if median_s is None:
        return None
    held = _held_by(able, survey)
    # One that takes as many as it likes has the places that it has filled.
    tasks_of = Counter(row["session_id"] for row in held)
    places = sum(max(one.places, tasks_of[one.session_id]) for one in able)
    return timezone.now() + timedelta(
        seconds=wait_s(median_s, places, [row["for_s"] for row in held], _ahead(task, survey).tasks)
    )


def _median_s(project_id: int, capability: str) -> float | None:
    rows = query(_DURATION, {"project": project_id, "capability": capability})
    found: float | None = rows[0]["median_s"]
    return found


def wait_s(median_s: float, places: int, busy_for_s: Sequence[float], ahead: int) -> float:
    """Return how long a task waits when `ahead` others come before it on so many places.

    Each place works for `median_s` on a task; those at work have done so for `busy_for_s`.
    """
    free_at = sorted(max(median_s - spent, 0.0) for spent in busy_for_s)[:places]
    free_at = sorted([0.0] * (places - len(free_at)) + free_at)
    rounds, rank = divmod(ahead, places)
    return free_at[rank] + rounds * median_s


def holder(task: Task, survey: Survey) -> Reason:
    """Say which agent has or had the task, and why that one."""
    session = survey.once(_sessions, survey.tasks).get(task.session_id)
    if session is None:
        return Reason("agent", "The agent that had it is not known any more.")
    agent = session.agent
    labels = f" and the labels {', '.join(task.requires)}" if task.requires else ""
    waited = _waited(task)
    refs: dict[str, Any] = {"agent": str(agent.pk), "session": str(session.pk)}
    return Reason(
        "agent",
        f"{agent.name} took it{waited}: it has {task.capability or 'the platform'!r}{labels} and "
        f"{_why_it(task, session, survey)}.",
        task.lease_until if task.status == "running" else None,
        refs,
    )


def _sessions(tasks: Sequence[Task]) -> dict[UUID | None, AgentSession]:
    found = AgentSession.objects.select_related("agent")
    return {**found.in_bulk({task.session_id for task in tasks if task.session_id})}


def _why_it(task: Task, session: AgentSession, survey: Survey) -> str:
    routing = task.routing or {}
    if not routing and session.queues:
        return "was the first of its kind to be free"
    if not routing:
        return "was free (of those that wait for work the least loaded is asked first)"
    if routing["agent"] != session.agent.name:
        return f"was free while {routing['agent']}, for which it was meant, did not take it"
    if key := routing.get("sticky"):
        return f"has the sticky key {key!r}{_since(task, key, survey)}"
    return f"was chosen ({_choice(routing)})"


def _waited(task: Task) -> str:
    if task.ready_at is None or task.started_at is None or task.started_at < task.ready_at:
        return ""
    return f" {(task.started_at - task.ready_at).total_seconds():.3f} s after it was ready"
