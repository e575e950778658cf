"""Why a task is where it is: every status, every wait, and who is meant."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import psycopg
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


def test_agent_that_drains_is_not_busy_and_starts_nothing(bench: Bench) -> None:
    bench.finish(begin(bench, node("earlier")))
    assert claim(task_of(begin(bench, node("busy")), "busy").id, 1, bench.session.id)
    run = begin(bench, node("a"))
    for change in ({"status": "draining"}, {"status": "active", "desired": "stopped"}):
        Agent.objects.update(**change)
        explained = why(run, "a")
        assert explained.reasons[0].code == "agents_down"
        assert "at work: bench is draining" in explained.reasons[0].message
        assert explained.expected_start is None


def test_sticky_task_starts_when_its_own_agent_may(bench: Bench) -> None:
    bench.finish(begin(bench, node("earlier")))
    other = agent(bench, "other")
    run = begin(bench, node("a"))
    Task.objects.filter(run=run).update(
        for_agent=other.pk, routing={"agent": "other", "sticky": "key", "strategy": "sticky"}
    )
    assert why(run, "a").expected_start is not None
    for change, said in (
        ({"paused": True}, "is paused"),
        ({"paused": False, "desired": "stopped"}, "is draining"),
    ):
        Agent.objects.filter(pk=other.pk).update(**change)
        explained = why(run, "a")
        assert f"other alone, which {said}" in explained.reasons[0].message
        assert explained.expected_start is None


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
    assert f"bench has busy ({task_of(busy, 'busy').id})" in explained.reasons[0].message
    assert explained.reasons[0].refs == {"tasks": [str(task_of(busy, "busy").id)]}
    assert "1 tasks" in explained.reasons[1].message
    assert explained.expected_start is not None
    assert 30 < (explained.expected_start - timezone.now()).total_seconds() <= 40
    assert why(ahead, "ahead").reasons[0].code == "all_busy"


def test_agent_with_a_free_place_is_not_busy(bench: Bench) -> None:
    dancer = registry.register(
        bench.project, name="two", kind="remote", capabilities=["dance"], concurrency=2
    )[0]
    session = sessions.start(dancer)
    sessions.ready(session.pk)
    run = begin(bench, *(node(f"t{n}", capability="dance") for n in range(3)))
    assert len(poll(session.pk, 1)) == 1
    assert first(run, "t2") == ("starting", "Free for it, and about to take it: two.")
    assert len(poll(session.pk, 1)) == 1
    assert first(run, "t2")[0] == "all_busy"


def test_agent_with_several_places_is_busy_when_all_are_taken(bench: Bench) -> None:
    done = begin(bench, node("earlier", capability="dig"))
    digger = registry.register(
        bench.project, name="digger", kind="remote", capabilities=["dig"], concurrency=3
    )[0]
    session = sessions.start(digger)
    sessions.ready(session.pk)
    assert poll(session.pk, 1)
    now = timezone.now()
    Task.objects.filter(run=done).update(
        status="completed", started_at=now - timedelta(seconds=100), completed_at=now
    )
    busy = begin(bench, *(node(f"busy{n}", capability="dig") for n in range(2)))
    assert len(poll(session.pk, 2)) == 2
    run = begin(bench, node("a", capability="dig"))
    assert first(run, "a")[0] == "starting"
    assert _expected_s(run, "a") <= 0
    third = begin(bench, node("third", capability="dig"))
    assert claim(task_of(third, "third").id, 1, session.pk)
    assert first(run, "a")[0] == "all_busy"
    # One of the three places is free soon.
    Task.objects.filter(pk=task_of(busy, "busy1").pk).update(started_at=now - timedelta(seconds=90))
    assert 0 < _expected_s(run, "a") <= 10


def _expected_s(run: Run, key: str) -> float:
    expected = why(run, key).expected_start
    assert expected is not None
    return (expected - timezone.now()).total_seconds()


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
        node("c", rate_limit=RateLimit(key="${{ 'r' }}", limit=1, per_s=60.0)),
        node("d", rate_limit=RateLimit(key="${{ 'r' }}", limit=1, per_s=60.0)),
        node("e", capability="other", retry=RetryPolicy(limit=2, initial_s=50.0, factor=1.0)),
    )
    bench.does("other", refuse)
    bench.step(task_of(run, "e"))
    waiting = {task.key: task for task in run.tasks.filter(status="waiting")}
    slot = next(key for key in waiting if key in "ab")
    assert first(run, slot)[0] == "concurrency"
    holder = next(key for key in "ab" if key != slot)
    assert f"{holder} ({task_of(run, holder).id})" in first(run, slot)[1]
    rated = next(key for key in waiting if key in "cd")
    assert why(run, rated).reasons[0].code == "rate_limit"
    assert why(run, rated).reasons[0].until == waiting[rated].wake_at
    assert "'r'" in why(run, rated).reasons[0].message
    assert "1 each 60 s" in why(run, rated).reasons[0].message
    assert why(run, rated).reasons[0].refs == {"key": "r"}
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


def test_culprit_above_a_long_chain_is_found_at_once(bench: Bench) -> None:
    length = 6000
    run = begin(bench, node("t0"), *(node(f"t{n}", f"t{n - 1}") for n in range(1, length)))
    below = run.tasks.exclude(key="t0").exclude(uses="end")
    below.update(status="skipped", error={"type": "upstream_failed", "message": "skipped"})
    run.tasks.filter(key="t0").update(status="failed", error={"type": "x", "message": "y"})
    began = time.monotonic()
    assert why(run, f"t{length - 1}").reasons[-1].message == "t0 failed: y"
    # Step by step through the database it took 5 s, and grew with the square.
    assert time.monotonic() - began < 2


def test_run_is_explained_by_its_live_tasks(bench: Bench) -> None:
    run = begin(bench, node("a"), node("b", "a"), node("c"))
    assert claim(task_of(run, "c").id, 1, bench.session.id)
    found = explain_run(run)
    assert [one.task.key for one in found] == ["c", "a", "b"]
    bench.handlers.clear()
    control.cancel_run(run.id)
    assert explain_run(run) == []


@pytest.fixture
def statements(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What the database is asked, by Django and by the engine's own cursors."""
    asked: list[Any] = []
    execute = psycopg.Cursor.execute

    def noted(cursor: Any, sql: Any, *rest: Any, **more: Any) -> Any:
        asked.append(sql)
        return execute(cursor, sql, *rest, **more)

    monkeypatch.setattr(psycopg.Cursor, "execute", noted)
    return asked


@pytest.mark.parametrize(
    "hold_up",
    [
        pytest.param(lambda bench, run: None, id="queued"),
        pytest.param(lambda bench, run: control.pause_run(run.id, actor="ann"), id="paused"),
        pytest.param(lambda bench, run: poll(bench.session.pk, 20), id="running"),
    ],
)
def test_explaining_many_tasks_asks_no_more_than_explaining_one(
    bench: Bench, statements: list[Any], hold_up: Callable[[Bench, Run], Any]
) -> None:
    done = begin(bench, node("earlier"))
    bench.finish(done)
    busy = begin(bench, node("busy"))
    assert claim(task_of(busy, "busy").id, 1, bench.session.id)
    asked = []
    for number in (1, 20):
        run = begin(
            bench,
            *(node(f"a{n}", priority=9 - n % 2) for n in range(number)),
            *(node(f"b{n}", f"a{n}") for n in range(number)),
        )
        hold_up(bench, run)
        run.refresh_from_db()
        statements.clear()
        found = explain_run(run)
        asked.append(len(statements))
        assert len(found) == 2 * number
        alone = [explain(Task.objects.get(pk=one.task.pk)) for one in found]
        assert [one.reasons for one in found] == [one.reasons for one in alone]
    assert asked[0] <= asked[1] <= asked[0] + 2 <= 12


def test_cancelling_and_phases_are_said(bench: Bench) -> None:
    task = submit_task(bench.project, node("x"))
    Run.objects.filter(pk=task.run_id).update(status="cancelling")
    assert explain(Task.objects.get(pk=task.pk)).reasons[0].code == "cancelling"
    run = begin(bench, node("a"), epilogue=[node("later")])
    assert first(run, "later")[0] == "phase"
