"""Why a task waits, was skipped or ended: the reasons in words, in the order in which they count."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from agents import breakers
from opscore.database import Row, query
from opscore.models import Event
from tasks import availability
from tasks.flow import Flow, RateLimit
from tasks.models import Pause, Run, Task
from tasks.reasons import SHOWN, Reason, listed
from tasks.retries import RetryPolicy
from tasks.states import TASK
from tasks.survey import Survey

#: Tasks of a run that are explained at once.
TASKS_SHOWN = 50


@dataclass(frozen=True)
class Explanation:
    """All that can be said about where a task stands."""

    task: Task
    reasons: Sequence[Reason]
    expected_start: datetime | None = None
    """By the last durations of its capability; None where there is no history or no agent."""


def explain(task: Task) -> Explanation:
    """Say why a task is where it is."""
    return _explain(task, Survey([task]))


def _explain(task: Task, survey: Survey) -> Explanation:
    reasons = [*_held_up(task, survey), *_BY_STATUS[task.status](task, survey)]
    start = None
    if task.status == "queued" and not any(reason.code == "paused" for reason in reasons):
        start = availability.expected_start(task, survey)
    return Explanation(task, reasons, start)


def explain_run(run: Run) -> list[Explanation]:
    """Explain the live tasks of a run, at most TASKS_SHOWN, those that could begin first."""
    live = run.tasks.exclude(status__in=TASK.terminal).exclude(uses="end").select_related("run")
    order = ("running", "queued", "waiting", "retrying", "pending")
    tasks = sorted(
        live.order_by("pending", "number")[:TASKS_SHOWN],
        key=lambda task: order.index(task.status),
    )
    survey = Survey(tasks)
    return [_explain(task, survey) for task in tasks]


# ------------------------------------------------------------ what holds up a whole run
def _held_up(task: Task, survey: Survey) -> Iterator[Reason]:
    if task.status in TASK.terminal or task.status == "running":
        return
    run = task.run
    if run.status == "created":
        yield survey.once(_no_place, run)
    if run.status == "paused":
        by = _by(survey.once(_last_actor, run.pk, "run.paused"))
        yield Reason("paused", f"The run is paused{by}.", refs={"run": str(run.pk)})
    if run.status == "cancelling" and task.phase == "main":
        yield Reason("cancelling", "The run is being cancelled.")
    for pause in survey.once(_pauses, task.project_id, run.workflow):
        what = f"The workflow {pause.workflow}" if pause.workflow else "The whole project"
        said = f": {pause.reason}" if pause.reason else "."
        yield Reason("paused", f"{what} is paused{_by(pause.paused_by)}{said}")


def _pauses(project_id: int, workflow: str) -> list[Pause]:
    return list(Pause.objects.filter(project_id=project_id, workflow__in=("", workflow)))


def _no_place(run: Run) -> Reason:
    others = Run.objects.filter(
        project_id=run.project_id,
        limit_key=run.limit_key,
        status__in=("running", "paused", "cancelling"),
    )
    ids = [str(pk) for pk in others.values_list("pk", flat=True)[:SHOWN]]
    places = (run.concurrency or {}).get("limit", 1)
    return Reason(
        "run_concurrency",
        f"The run waits for a place under the concurrency key {run.limit_key!r} "
        f"({places} in all), which other runs have: {', '.join(ids)}.",
        refs={"key": run.limit_key, "runs": ids},
    )


def _last_actor(run_id: UUID, kind: str) -> str:
    events = Event.objects.filter(run_id=run_id, kind=kind).order_by("-id")
    return events.values_list("actor", flat=True).first() or ""


def _by(actor: str) -> str:
    return f" by {actor}" if actor else ""


# ------------------------------------------------------------ by status
_NEEDS = """
SELECT id, key, status, successors FROM tasks_task
 WHERE run_id = %(run)s AND successors && %(numbers)s::int[] ORDER BY number
"""


def _pending(task: Task, survey: Survey) -> Iterator[Reason]:
    if task.phase not in ("main", task.run.phase):
        yield Reason("phase", f"It belongs to `{task.phase}`, which comes when the rest has ended.")
        return
    needs = survey.once(_needs, task.run_id, survey.tasks).get(task.number, [])
    still = [row for row in needs if row["status"] not in TASK.terminal]
    if not still:
        yield Reason("deciding", "Its needs have ended; it is about to be decided.")
        return
    names = listed([f"{row['key']} ({row['status']})" for row in still])
    yield Reason(
        "needs",
        f"It waits for {len(still)} of {len(needs)} tasks (join: {task.join}): {names}.",
        refs={"tasks": [_named(row) for row in still[:SHOWN]]},
    )


def _needs(run_id: UUID, tasks: Sequence[Task]) -> dict[int, list[Row]]:
    """Return what the pending ones among these tasks of a run wait for, by their numbers."""
    found: dict[int, list[Row]] = {task.number: [] for task in tasks if task.status == "pending"}
    for row in query(_NEEDS, {"run": run_id, "numbers": list(found)}):
        for number in found.keys() & row["successors"]:
            found[number].append(row)
    return found


def _named(row: Row) -> dict[str, str]:
    return {"id": str(row["id"]), "key": row["key"], "status": row["status"]}


def _queued(task: Task, survey: Survey) -> Iterator[Reason]:
    yield from availability.obstacles(task, survey)
    if task.queue_timeout_s is not None and task.ready_at is not None:
        yield Reason(
            "queue_timeout", f"It fails when no agent takes it in {task.queue_timeout_s:g} s."
        )


def _running(task: Task, survey: Survey) -> Iterator[Reason]:
    yield availability.holder(task, survey)


def _retrying(task: Task, survey: Survey) -> Iterator[Reason]:
    tries = task.attempt - task.tried_before
    limit = RetryPolicy.from_dict(task.retry).limit + 1
    last = task.attempts.order_by("-id").first()
    error = (last.error or {}).get("message", "") if last else ""
    said = f"; the last one failed: {error}" if error else ""
    yield Reason("retry_at", f"Attempt {tries} of {limit} has not begun{said}", task.wake_at)


def _ended(task: Task, survey: Survey) -> Iterator[Reason]:
    error = task.error or {}
    if task.session_id:
        yield availability.holder(task, survey)
    if error:
        yield Reason(str(error.get("type", "error")), str(error.get("message", "")))
    if error.get("type") in _UPSTREAM:
        yield from _culprits(task)


# One read of what did not run, then the way up in memory: a recursive query would go through the
# whole run again for each step up (4,000 tasks in a row: seconds).
_NOT_DONE = """
SELECT id, number, successors, status, error->>'type' AS type, completed_at FROM tasks_task
 WHERE run_id = %(run)s AND status IN ('failed', 'cancelled', 'skipped')
"""
_UPSTREAM = ("upstream_failed", "upstream_skipped")


def _culprits(task: Task) -> Iterator[Reason]:
    above: dict[int, list[Row]] = {}
    for row in query(_NOT_DONE, {"run": task.run_id}):
        for number in row["successors"]:
            above.setdefault(number, []).append(row)
    guilty = sorted(_guilty(task.number, above), key=lambda row: str(row["completed_at"]))
    found = Task.objects.in_bulk([row["id"] for row in guilty[:SHOWN]])
    for row in guilty[:SHOWN]:
        culprit = found[row["id"]]
        said = (culprit.error or {}).get("message", "")
        yield Reason(
            f"upstream_{culprit.status}",
            f"{culprit.key} {_DID[culprit.status]}: {said}",
            refs={"task": str(culprit.pk)},
        )


def _guilty(number: int, above: Mapping[int, Sequence[Row]]) -> Iterator[Row]:
    """Return what is above a task and was not only skipped because of others."""
    seen, todo = {number}, [number]
    while todo:
        for row in above.get(todo.pop(), ()):
            if row["number"] in seen:
                continue
            seen.add(row["number"])
            if row["status"] == "skipped" and row["type"] != "condition":
                todo.append(row["number"])
            else:
                yield row


_DID = {"failed": "failed", "cancelled": "was cancelled", "skipped": "was skipped"}


# ------------------------------------------------------------ waits
def _waiting(task: Task, survey: Survey) -> Iterator[Reason]:
    yield _WAITS[task.waits_for](task, survey)


def _for_time(task: Task, survey: Survey) -> Reason:
    return Reason("wait", "It waits for a time.", task.wake_at)


def _for_signal(task: Task, survey: Survey) -> Reason:
    name = task.names.get("signal", task.key)
    return Reason("signal", f"It waits for the signal {name!r}.", refs={"signal": name})


def _for_approval(task: Task, survey: Survey) -> Reason:
    asked = task.names.get("approval", {})
    who = asked.get("role") or "anybody who may decide"
    said = f": {asked['message']}" if asked.get("message") else "."
    return Reason("approval", f"It waits for the decision of {who}{said}", task.wake_at)


def _for_run(task: Task, survey: Survey) -> Reason:
    child = Run.objects.filter(parent_task_id=task.pk).order_by("-id").first()
    if child is None:
        return Reason("run", "Its run is about to begin.")
    return Reason(
        "run",
        f"It waits for the run {child.pk} of {child.workflow}, which is {child.status}.",
        refs={"run": str(child.pk)},
    )


def _for_items(task: Task, survey: Survey) -> Reason:
    open_items = Task.objects.filter(parent_id=task.pk).exclude(status__in=TASK.terminal)
    at_work = open_items.count()
    left = (task.item_count or 0) - task.next_item
    return Reason(
        "items",
        f"It waits for its {task.item_count} items: {at_work} are under way, {left} come later.",
        refs={"tasks": [str(pk) for pk in open_items.values_list("pk", flat=True)[:SHOWN]]},
    )


def _for_slot(task: Task, survey: Survey) -> Reason:
    holders = Task.objects.filter(project_id=task.project_id, limit_key=task.limit_key)
    at_work = holders.exclude(pk=task.pk).exclude(status="waiting", waits_for="slot")
    rows = list(at_work.exclude(status__in=TASK.terminal).values_list("id", "key", "run_id"))
    names = listed([f"{key} ({pk}) of the run {run_id}" for pk, key, run_id in rows])
    return Reason(
        "concurrency",
        f"The concurrency key {task.limit_key!r} is taken by {names or 'a task that is ending'}.",
        refs={"key": task.limit_key, "tasks": [str(pk) for pk, _, _ in rows[:SHOWN]]},
    )


def _for_rate(task: Task, survey: Survey) -> Reason:
    rate = Flow.from_dict(task.flow).rate_limit or RateLimit()
    key = task.names.get("rate", rate.key)
    said = f"The rate limit {key!r} ({rate.limit} each {rate.per_s:g} s) is used up"
    return Reason("rate_limit", f"{said}; its start is reserved.", task.wake_at, {"key": key})


def _for_breaker(task: Task, survey: Survey) -> Reason:
    names = list(Flow.from_dict(task.flow).resources)
    shut = survey.once(breakers.not_closed, task.project_id, tuple(names))
    refs = {"resources": names, "breakers": [row["name"] for row in shut]}
    if not shut:
        return Reason("breaker", "The circuit breaker closed; it is about to go on.", None, refs)
    first = shut[0]
    if first["state"] == "half_open":
        said = "is half open: a few tasks try it first"
    else:
        said = "is " + availability.open_until(first["until"])
    why = f" ({first['reason']})" if first["reason"] else ""
    message = f"The circuit breaker of the resource {first['name']!r} {said}{why}."
    return Reason("breaker", message, first["until"], refs)


_WAITS = {
    "time": _for_time,
    "signal": _for_signal,
    "approval": _for_approval,
    "run": _for_run,
    "items": _for_items,
    "slot": _for_slot,
    "rate": _for_rate,
    "breaker": _for_breaker,
}
_BY_STATUS = {
    "pending": _pending,
    "queued": _queued,
    "running": _running,
    "waiting": _waiting,
    "retrying": _retrying,
    **dict.fromkeys(TASK.terminal, _ended),
}
