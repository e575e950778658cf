"""Why a task is where it is: every status, every wait, and who is meant."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone
from hypothesis import given
from hypothesis import strategies as st

from agents import registry, sessions, transitions
from agents.models import Agent
from tasks import control
from tasks.availability import wait_s
from tasks.claims import claim, poll
from tasks.flow import Concurrency, RateLimit
from tasks.models import Run, Task
from tasks.retries import RetryPolicy
from tasks.submission import submit_task
from tasks.why import Explanation, explain, explain_run
from tests.engine.conftest import Bench
from tests.engine.flows import begin, node, refuse, task_of

pytestmark = pytest.mark.django_db(transaction=True)


def why(run: Run, key: str) -> Explanation:
    return explain(Task.objects.get(run_id=run.pk, key=key))


def first(run: Run, key: str) -> tuple[str, str]:
    reason = why(run, key).reasons[0]
    return reason.code, reason.message


def agent(bench: Bench, name: str, *labels: str, capability: str = "work") -> Agent:
    made = registry.register(
        bench.project, name=name, kind="remote", capabilities=[capability], labels=labels
    )[0]
    sessions.ready(sessions.start(made).pk)
    return made


@pytest.fixture(autouse=True)
def _ready(bench: Bench) -> None:
    sessions.ready(bench.session.pk)


# ------------------------------------------------------------ who could take it
def test_nobody_offers_the_capability(bench: Bench) -> None:
    run = begin(bench, node("a", capability="dance"))
    assert first(run, "a") == ("no_agent", "No agent offers 'dance'.")
    assert why(run, "a").expected_start is None


def test_nearest_agent_is_named_with_what_it_lacks(bench: Bench) -> None:
    agent(bench, "plain", capability="dance")
    agent(bench, "strong", "cuda", capability="dance")
    run = begin(bench, node("a", capability="dance", requires=("cuda", "gpu")))
    code, message = first(run, "a")
    assert code == "no_agent"
    assert "the nearest one, strong, lacks gpu" in message
    # It starts the moment such an agent appears.
    able = agent(bench, "able", "cuda", "gpu", "new", capability="dance")
    assert first(run, "a")[0] == "starting"
    session = able.sessions.get(ended_at=None)
    assert [task.key for task in poll(session.pk, 1)] == ["a"]


def test_agents_that_are_paused_or_down_are_told_apart(bench: Bench) -> None:
    registry.pause(bench.session.agent)
    run = begin(bench, node("a"))
    assert first(run, "a") == (
        "agents_paused",
        "Every agent that could take it is paused: bench.",
    )
    down = agent(bench, "down")
    sessions.end([down.sessions.get().pk], "killed")
    transitions.change([down.pk], "error", reason="ImportError: no torch\nand more")
    code, message = first(run, "a")
    assert code == "agents_down"
    assert "bench is paused, down is error (ImportError: no torch)" in message


def test_busy_agents_are_named_with_their_tasks_and_a_start_is_expected(bench: Bench) -> None:
    done = begin(bench, node("earlier"))
    bench.finish(done)
    later = timezone.now()
    Task.objects.filter(run=done).update(
        started_at=later - timedelta(seconds=20), completed_at=later
    )
    busy = begin(bench, node("busy"))
    assert claim(task_of(busy, "busy").id, 1, bench.session.id)
    ahead = begin(bench, node("ahead", priority=9))
    run = begin(bench, node("a"))
    explained = why(run, "a")
    assert [reason.code for reason in explained.reasons] == ["all_busy", "queue"]
    assert "bench has busy" in explained.reasons[0].message
    assert explained.reasons[0].refs == {"tasks": [str(task_of(busy, "busy").id)]}
    assert "1 tasks" in explained.reasons[1].message
    assert explained.expected_start is not None
    assert 30 < (explained.expected_start - timezone.now()).total_seconds() <= 40
    assert why(ahead, "ahead").reasons[0].code == "all_busy"


@given(
    median=st.integers(1, 10_000),
    places=st.integers(1, 9),
    busy=st.lists(st.integers(0, 100_000), max_size=12),
    ahead=st.integers(0, 100),
)
def test_expected_wait_grows_with_the_queue_and_never_is_negative(
    median: int, places: int, busy: list[int], ahead: int
) -> None:
    waits = [wait_s(median, places, busy, n) for n in range(ahead + 1)]
    assert waits == sorted(waits)
    assert waits[0] >= 0
    assert wait_s(median, places, busy, ahead) <= median * (ahead // places + 1)
    assert wait_s(median, places, [], 0) == 0


def test_running_task_says_who_has_it_and_why(bench: Bench) -> None:
    run = begin(bench, node("a", requires=("gpu",)))
    assert claim(task_of(run, "a").id, 1, bench.session.id)
    code, message = first(run, "a")
    assert code == "agent"
    assert message.startswith("bench took it 0.")
    assert "'work' and the labels gpu" in message


# ------------------------------------------------------------ what else it waits for
def test_needs_are_named_with_their_statuses(bench: Bench) -> None:
    run = begin(
        bench,
        node("a"),
        *(node(f"b{n}") for n in range(6)),
        node("c", "a", *(f"b{n}" for n in range(6))),
    )
    bench.step(task_of(run, "a"))
    code, message = first(run, "c")
    assert code == "needs"
    assert "6 of 7 tasks (join: all_success): b0 (queued), b1 (queued)" in message
    assert message.endswith("and 1 more.")


def test_pauses_say_who_paused_what(bench: Bench) -> None:
    run = begin(bench, node("a"), workflow="nightly")
    control.pause_run(run.id, actor="ann")
    control.pause(bench.project, workflow="nightly", reason="Sunday", actor="bob")
    reasons = why(run, "a").reasons
    assert [reason.message for reason in reasons[:2]] == [
        "The run is paused by ann.",
        "The workflow nightly is paused by bob: Sunday",
    ]
    assert why(run, "a").expected_start is None


def test_run_that_waits_for_its_place_names_the_others(bench: Bench) -> None:
    limit = Concurrency(key="one")
    holder = begin(bench, node("a"), concurrency=limit)
    run = begin(bench, node("b"), concurrency=limit)
    code, message = first(run, "b")
    assert code == "run_concurrency"
    assert str(holder.id) in message


def test_waits_for_slot_rate_and_retry(bench: Bench) -> None:
    limit = Concurrency(key="key")
    run = begin(
        bench,
        node("a", concurrency=limit),
        node("b", concurrency=limit),
        node("c", rate_limit=RateLimit(key="r", limit=1, per_s=60.0)),
        node("d", rate_limit=RateLimit(key="r", limit=1, per_s=60.0)),
        node("e", capability="other", retry=RetryPolicy(limit=2, initial_s=50.0, factor=1.0)),
    )
    bench.does("other", refuse)
    bench.step(task_of(run, "e"))
    waiting = {task.key: task for task in run.tasks.filter(status="waiting")}
    slot = next(key for key in waiting if key in "ab")
    assert first(run, slot)[0] == "concurrency"
    assert str(run.id) in first(run, slot)[1]
    rated = next(key for key in waiting if key in "cd")
    assert why(run, rated).reasons[0].code == "rate_limit"
    assert why(run, rated).reasons[0].until == waiting[rated].wake_at
    retry = why(run, "e").reasons[0]
    assert (retry.code, retry.until) == ("retry_at", task_of(run, "e").wake_at)
    assert retry.message.startswith("Attempt 2 of 3 has not begun; the last one failed:")


@pytest.mark.parametrize(
    ("uses", "inputs", "code", "words"),
    [
        ("wait", {"duration": "1h"}, "wait", "a time"),
        ("signal", {"name": "paid"}, "signal", "'paid'"),
        ("approval", {"message": "Ship?", "role": "operator"}, "approval", "operator: Ship?"),
    ],
)
def test_waits_for_time_signal_and_people(
    bench: Bench, uses: str, inputs: dict[str, Any], code: str, words: str
) -> None:
    run = begin(bench, node("a", uses=uses, capability="", inputs=inputs))
    found = first(run, "a")
    assert found[0] == code
    assert words in found[1]


def test_list_counts_its_items(bench: Bench) -> None:
    run = begin(bench, node("a", for_each=[1, 2, 3, 4], max_parallel=2))
    code, message = first(run, "a")
    assert code == "items"
    assert "4 items: 2 are under way, 2 come later" in message


# ------------------------------------------------------------ what is over
def test_skipped_task_names_the_culprit_however_far_above(bench: Bench) -> None:
    bench.does("other", refuse)
    run = begin(
        bench, node("bad", capability="other"), node("mid", "bad"), node("end", "mid"),
        node("no", condition="false"), node("below", "no"),
    )  # fmt: skip
    bench.finish(run)
    assert [reason.code for reason in why(run, "end").reasons][-1] == "upstream_failed"
    assert why(run, "end").reasons[-1].message.startswith("bad failed: ")
    assert first(run, "no") == ("condition", "`if` is false: false")
    assert "no was skipped: `if` is false" in why(run, "below").reasons[-1].message
    assert why(run, "bad").reasons[0].code == "agent"


def test_run_is_explained_by_its_live_tasks(bench: Bench) -> None:
    run = begin(bench, node("a"), node("b", "a"), node("c"))
    assert claim(task_of(run, "c").id, 1, bench.session.id)
    found = explain_run(run)
    assert [one.task.key for one in found] == ["c", "a", "b"]
    bench.handlers.clear()
    control.cancel_run(run.id)
    assert explain_run(run) == []


def test_cancelling_and_phases_are_said(bench: Bench) -> None:
    task = submit_task(bench.project, node("x"))
    Run.objects.filter(pk=task.run_id).update(status="cancelling")
    assert explain(Task.objects.get(pk=task.pk)).reasons[0].code == "cancelling"
    run = begin(bench, node("a"), epilogue=[node("later")])
    assert first(run, "later")[0] == "phase"
