"""The rules of the executor protocol, each with the trial that shows whether it is kept."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from opscore_sdk.conformance.rig import HEARTBEAT_S, SESSION_TTL_S, Broken, Rig, Wish, rig
from opscore_sdk.testing import Seen
from opscore_sdk.testing.records import TaskRecord

#: How much later than promised something may come on a busy machine, seconds.
SLACK_S = 0.7


@dataclass(frozen=True)
class Rule:
    """A rule, and what shows whether an executor keeps it."""

    name: str
    sentence: str
    trial: Callable[[Rig], None]


@dataclass(frozen=True)
class Verdict:
    """What came out for one rule."""

    rule: Rule
    broken: str = ""
    """How the rule is broken; '' when it is kept."""
    output: str = ""
    """The end of what the executor wrote."""


def certify(wish: Wish, names: Sequence[str] = ()) -> Iterator[Verdict]:
    """Try the rules, each on a fresh process, and yield a verdict for each; none: all rules."""
    for rule in RULES:
        if not names or rule.name in names:
            yield _judge(rule, wish)


def _judge(rule: Rule, wish: Wish) -> Verdict:
    try:
        with rig(wish) as running:
            message = "it registered no agent and began no session"
            running.until(lambda: running.session and running.capability, 10, message)
            rule.trial(running)
    except Broken as broken:
        return Verdict(rule, str(broken), broken.output)
    return Verdict(rule)


def _claims(rig: Rig) -> None:
    began = time.monotonic()
    time.sleep(2 * HEARTBEAT_S)
    claims = rig.seen("POST", "/claim", began)
    if len(claims) > 10:
        raise Broken(f"{len(claims)} claims in {2 * HEARTBEAT_S:g} idle seconds: let them wait")
    understood = (claim for claim in rig.seen("POST", "/claim") if claim.was_understood)
    if not any((claim.body or {}).get("wait_s") for claim in understood):
        raise Broken("no claim says `wait_s`: each new task would wait for the next claim")
    rig.done(rig.submit(), 8)


def _each_once(rig: Rig) -> None:
    tasks = [rig.submit() for _ in range(5)]
    for task in tasks:
        rig.done(task, 15)
        reports = rig.seen("POST", f"/tasks/{task.id}/report")
        if len(reports) != 1:
            raise Broken(f"{len(reports)} reports of one task, whose first one was recorded")


def _bad_input(rig: Rig) -> None:
    odd = rig.submit(inputs={})
    rig.until(lambda: odd.has_ended, 8, "a task with empty inputs was not reported at all")
    rig.done(rig.submit(), 8)


def _heartbeats(rig: Rig) -> None:
    task = rig.submit(seconds=SESSION_TTL_S * 1.5)
    rig.done(task, SESSION_TTL_S * 1.5 + 8)
    if task.losses:
        raise Broken("its session timed out while it worked: it sent no heartbeats")
    beats = rig.beats(task)
    times = [beat.at for beat in beats]
    if not times:
        raise Broken("its heartbeats do not list the task that it works on")
    pauses = [later - one for one, later in itertools.pairwise(times)]
    longest = max(pauses, default=0.0)
    if longest > HEARTBEAT_S + SLACK_S:
        raise Broken(f"{longest:.1f} s between two heartbeats; every {HEARTBEAT_S:g} s are asked")
    if any({"id": task.id, "fence": 1} not in beat.body["tasks"] for beat in beats):
        raise Broken("its heartbeats list the task without the fence that it was claimed with")


def _cancel(rig: Rig) -> None:
    task = rig.submit(seconds=60)
    rig.until(lambda: task.has_ended or rig.beats(task), 8, "no heartbeat listed the task")
    if task.has_ended:
        problem = f"its task of 60 s ended before it could be cancelled: does `{rig.seconds_input}`"
        raise Broken(f"{problem} say how long it takes?")
    with rig.platform.client() as client:
        client.cancel_task(task.id)
    told = rig.until(
        lambda: _told(rig, task),
        3 * HEARTBEAT_S + SLACK_S,
        "no heartbeat asked about the task after it was cancelled",
    )
    time.sleep(2 * HEARTBEAT_S + SLACK_S)
    if rig.beats(task, told.at + HEARTBEAT_S + SLACK_S):
        raise Broken("it goes on with a task that was cancelled, as an answer said")
    rig.done(rig.submit(), 8)


def _told(rig: Rig, task: TaskRecord) -> Seen | None:
    """Return the answer from which the executor knows: of a heartbeat, a log or a report."""
    for asked in list(rig.platform.seen):
        named = task.id in (asked.answer or {}).get("cancelled", ())
        if named or (task.id in asked.path and asked.status == 409):
            return asked
    return None


def _fencing(rig: Rig) -> None:
    task = rig.submit(seconds=0.5)
    rig.platform.refused_reports.add(task.id)
    path = f"/tasks/{task.id}/report"
    rig.until(lambda: rig.seen("POST", path), 8, "the task was not reported")
    time.sleep(2 * HEARTBEAT_S)
    reports = len(rig.seen("POST", path))
    if reports > 2:
        raise Broken(f"{reports} reports of a task whose report was refused with 409: drop it")
    rig.done(rig.submit(), 8)


def _new_session(rig: Rig) -> None:
    task = rig.submit(seconds=2)
    rig.started(task)
    old = rig.session
    assert old is not None  # noqa: S101 - there is one since the trial began
    rig.platform.engine.end_session(old, "ended by the trial")
    rig.until(
        lambda: rig.session,
        3 * HEARTBEAT_S + 5,
        "it began no new session after the 409 of its old one",
    )
    rig.done(task, 15)


def _restart(rig: Rig) -> None:
    task = rig.submit(seconds=0.5)
    rig.started(task)
    rig.platform.go_away(0.6 * SESSION_TTL_S)
    rig.done(task, 10)
    if task.losses:
        raise Broken("it gave up its session because the platform was away for a moment")
    if task.fence > 1:
        raise Broken("its report met a 503 and was dropped: the task had to be done again")


def _terminates(rig: Rig) -> None:
    task = rig.submit(seconds=2.5 * HEARTBEAT_S)
    # Its heartbeat shows that the claim has reached it; before, it may give the task back.
    rig.until(lambda: rig.beats(task), 8, "no heartbeat listed the task")
    rig.terminate()
    time.sleep(0.3)
    later = rig.submit()
    _gone(rig, 8)
    if task.status != "completed":
        raise Broken(f"SIGTERM: it did not finish its task, which is {task.status}")
    if later.fence or later.has_ended:
        raise Broken("SIGTERM: it took another task")


def _leaves(rig: Rig) -> None:
    rig.terminate()
    _gone(rig, 5)


def _gone(rig: Rig, timeout_s: float) -> None:
    give_up_at = time.monotonic() + timeout_s
    while rig.process.poll() is None:
        if time.monotonic() > give_up_at:
            raise Broken(f"SIGTERM: it did not end within {timeout_s:g} s")
        time.sleep(0.02)
    if rig.process.returncode != 0:
        raise Broken(f"SIGTERM: it ended with status {rig.process.returncode}, not 0")
    if rig.session is not None:
        raise Broken("SIGTERM: it did not end its session (DELETE /sessions/…)")


RULES = (
    Rule("claims", "waits for tasks with long polls and does one", _claims),
    Rule("each-once", "does several tasks and reports each once", _each_once),
    Rule("bad-input", "reports a task with odd inputs and lives on", _bad_input),
    Rule("heartbeats", "beats in time while it works, with task and fence", _heartbeats),
    Rule("cancel", "stops what a heartbeat's answer names", _cancel),
    Rule("fencing", "drops work whose late report is refused", _fencing),
    Rule("new-session", "begins a new session when its old one has ended", _new_session),
    Rule("restart", "reports again when the platform was away", _restart),
    Rule("terminates", "finishes on SIGTERM, takes nothing new, signs off", _terminates),
    Rule("leaves", "ends at once on SIGTERM when it is idle", _leaves),
)
