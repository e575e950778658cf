"""Each verb of the engine, one promise a test."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.db import transaction
from django.utils import timezone

from agents import sessions
from agents.handlers import Context, HandlerError
from agents.models import Agent, AgentSession
from opscore.config import load_config
from opscore.errors import ConflictError, InvalidError
from opscore.ids import uuid7
from opscore.models import Event, Project
from tasks import reconcile
from tasks.claims import claim, poll
from tasks.execution import Outcome, execute
from tasks.graph import Graph, Node
from tasks.models import Payload, Run, Task
from tasks.reports import complete, fail
from tasks.retries import RetryPolicy
from tasks.submission import start_run, submit_task
from tests.engine.conftest import Bench, error_of, status_of, transaction_number
from tests.engine.dags import chain, diamond

pytestmark = pytest.mark.django_db(transaction=True)
ONCE_MORE = RetryPolicy(limit=1, initial_s=0.0)


def node(**fields: Any) -> Node:
    return Node(**{"key": "job", "capability": "work", **fields})


def boom(task: Context) -> None:
    raise HandlerError("no luck", type="unlucky")


def make_due(task: Task) -> None:
    """Move a row's due time, not a clock."""
    Task.objects.filter(id=task.id).update(wake_at=timezone.now() - timedelta(seconds=1))


def test_run_ends_when_its_last_sink_has_ended(bench: Bench) -> None:
    run = bench.finish(start_run(bench.project, diamond(3), inputs={}))
    assert run.status == "completed"
    assert run.completed_at is not None
    assert set(run.tasks.values_list("status", flat=True)) == {"completed"}


def test_node_costs_at_most_two_transactions(bench: Bench) -> None:
    run = start_run(bench.project, chain(40), inputs={})
    ids = list(run.tasks.order_by("number").values_list("id", flat=True))
    before = transaction_number()
    for number, task_id in enumerate(ids):
        assert execute(task_id, 1, (number + 1,)) is Outcome.COMPLETED
    # Every transaction that writes takes one number; asking for it takes one too.
    # (Autovacuum may take a few: fewer than one for each node.)
    assert transaction_number() - before - 1 < 2 * len(ids) + 20


def test_failed_task_fails_its_run_and_skips_what_depended_on_it(bench: Bench) -> None:
    bench.does("other", boom)
    graph = Graph.of(
        [
            node(key="a"),
            node(key="b", capability="other", needs=("a",)),
            node(key="c", needs=("b",)),
            node(key="d", needs=("c", "a")),
            node(key="e", needs=("a",)),
        ]
    )
    run = bench.finish(start_run(bench.project, graph, inputs={}))
    statuses = dict(run.tasks.values_list("key", "status"))
    assert statuses == {
        "a": "completed",
        "b": "failed",
        "c": "skipped",
        "d": "skipped",
        "e": "completed",
    }
    assert run.status == "failed"
    assert (error_of(run)["task"], error_of(run)["type"], error_of(run)["message"]) == (
        "b",
        "unlucky",
        "no luck",
    )
    assert error_of(Task.objects.get(run=run, key="c"))["message"] == "not run: b failed"


def test_run_goes_on_until_the_last_live_task_has_ended(bench: Bench) -> None:
    """A join that cannot hold any more is judged when all that it waits for has ended."""
    bench.does("other", boom)
    graph = Graph.of(
        [
            node(key="bad", capability="other"),
            node(key="x"),
            node(key="y", needs=("x",)),
            node(key="join", needs=("bad", "y")),
            node(key="after", needs=("join",)),
        ]
    )
    run = start_run(bench.project, graph, inputs={})
    bench.step(run.tasks.get(key="bad"))
    run.refresh_from_db()
    assert (run.status, run.open_sinks) == ("running", 1)
    assert status_of(run.tasks.get(key="after").id) == "pending"
    bench.finish(run)
    assert status_of(run.tasks.get(key="after").id) == "skipped"
    assert (run.status, run.open_sinks) == ("failed", 0)
    assert status_of(run.tasks.get(key="y").id) == "completed"


def test_retry_waits_in_the_database_and_counts_the_attempt(bench: Bench) -> None:
    bench.does("work", boom)
    task = submit_task(bench.project, node(retry=RetryPolicy(limit=1, initial_s=1e6, max_s=1e6)))
    assert bench.step(task) is Outcome.RETRYING
    task.refresh_from_db()
    assert (task.status, task.attempt, task.losses) == ("retrying", 2, 0)
    assert bench.step(task) is Outcome.STALE, "not before its time"
    make_due(task)
    reconcile.reconcile()
    assert status_of(task.id) == "queued"
    assert bench.step(task) is Outcome.FAILED
    outcomes = list(task.attempts.order_by("id").values_list("number", "outcome"))
    assert outcomes == [(1, "failed"), (2, "failed")]
    assert Run.objects.get(id=task.run_id).status == "failed"
    kinds = set(Event.objects.filter(task_id=task.id).values_list("kind", flat=True))
    assert {"task.retrying", "task.failed"} <= kinds


def test_error_that_is_not_retryable_is_final(bench: Bench) -> None:
    def refuse(task: Context) -> None:
        raise HandlerError("never", retryable=False)

    bench.does("work", refuse)
    assert (
        bench.step(submit_task(bench.project, node(retry=RetryPolicy(limit=9)))) is Outcome.FAILED
    )


def test_retry_marks_the_joins_that_its_canvas_would_have_delivered(bench: Bench) -> None:
    bench.does("other", boom)
    graph = Graph.of(
        [
            node(key="a"),
            node(key="b", capability="other", retry=ONCE_MORE, needs=("a",)),
            node(key="c", needs=("b",)),
            node(key="x", needs=("a",)),
            node(key="join", needs=("c", "x")),
        ]
    )
    run = start_run(bench.project, graph, inputs={})
    bench.step(run.tasks.get(key="a"))
    bench.step(run.tasks.get(key="b"))
    assert dict(run.tasks.values_list("key", "uncarried"))["join"] is True
    assert dict(run.tasks.values_list("key", "uncarried"))["c"] is False


def test_loss_of_an_agent_is_no_attempt(bench: Bench) -> None:
    task = submit_task(bench.project, node())
    assert claim(task.id, 1, bench.session.id) is not None
    bench.reborn("exit status 9")
    task.refresh_from_db()
    assert (task.status, task.attempt, task.losses) == ("queued", 1, 1)
    assert task.attempts.get().outcome == "lost"
    assert task.attempts.get().error == {"type": "lost", "message": "exit status 9"}
    assert bench.step(task) is Outcome.COMPLETED


def test_task_that_kills_its_agents_fails_after_the_limit(bench: Bench) -> None:
    task = submit_task(bench.project, node(retry=RetryPolicy(limit=9)))
    for _ in range(load_config().max_losses + 1):
        assert claim(task.id, 1, bench.session.id) is not None
        bench.reborn()
    task.refresh_from_db()
    assert (task.status, error_of(task)["type"]) == ("failed", "lost")
    assert "died 6 times" in error_of(task)["message"]


def test_late_report_is_refused_and_changes_nothing(bench: Bench) -> None:
    task = submit_task(bench.project, node())
    held = claim(task.id, 1, bench.session.id)
    assert held is not None
    bench.reborn()
    for report in (lambda: complete(task.id, held.fence, 1), lambda: fail(task.id, held.fence, {})):
        with pytest.raises(ConflictError, match="refused"):
            report()
    assert status_of(task.id) == "queued"


def test_second_report_is_refused(bench: Bench) -> None:
    task = submit_task(bench.project, node())
    held = claim(task.id, 1, bench.session.id)
    assert held is not None
    complete(task.id, held.fence, "first")
    with pytest.raises(ConflictError):
        complete(task.id, held.fence, "second")
    task.refresh_from_db()
    assert task.result == "first"


def test_ended_session_can_claim_nothing(bench: Bench) -> None:
    task = submit_task(bench.project, node())
    sessions.end([bench.session.id], "over")
    assert claim(task.id, 1, bench.session.id) is None
    assert poll(bench.session.id, 10) == []
    assert execute(task.id, 1, ()) is Outcome.STALE


def test_task_held_by_an_ended_session_is_found_although_the_news_was_lost(bench: Bench) -> None:
    task = submit_task(bench.project, node())
    claim(task.id, 1, bench.session.id)
    AgentSession.objects.filter(id=bench.session.id).update(ended_at=timezone.now())
    reconcile.reconcile()
    assert status_of(task.id) == "queued"


def test_overdue_attempt_fails_and_its_process_is_condemned(bench: Bench) -> None:
    task = submit_task(bench.project, node(timeout_s=30, retry=RetryPolicy(limit=1, initial_s=1e6)))
    claim(task.id, 1, bench.session.id)
    # Only a supervisor kills processes; one that it started has a spec.
    Agent.objects.filter(id=bench.session.agent_id).update(spec="bench")
    reconcile.reconcile()
    assert status_of(task.id) == "running"
    Task.objects.filter(id=task.id).update(lease_until=timezone.now() - timedelta(seconds=1))
    reconcile.reconcile()
    task.refresh_from_db()
    assert (task.status, error_of(task)["type"]) == ("retrying", "timeout")
    assert error_of(task)["message"] == "took longer than 30 s"
    bench.session.refresh_from_db()
    assert "took longer than 30 s" in bench.session.condemned
    assert task.attempts.get().outcome == "timeout"


def test_poller_goes_on_after_a_timeout(bench: Bench) -> None:
    """Nobody could kill its process, and a condemned session would claim nothing any more."""
    late = submit_task(bench.project, node(timeout_s=30))
    claim(late.id, 1, bench.session.id)
    Task.objects.update(lease_until=timezone.now() - timedelta(seconds=1))
    reconcile.reconcile()
    assert status_of(late.id) == "failed"
    task = submit_task(bench.project, node())
    assert [held.id for held in poll(bench.session.id, 1)] == [task.id]


def test_process_that_has_gone_on_is_not_killed_for_its_last_task(bench: Bench) -> None:
    Agent.objects.filter(id=bench.session.agent_id).update(spec="bench")
    late, next_one = (submit_task(bench.project, node(timeout_s=30)) for _ in range(2))
    claim(late.id, 1, bench.session.id)
    Task.objects.filter(id=late.id).update(lease_until=timezone.now() - timedelta(seconds=1))
    claim(next_one.id, 1, bench.session.id)
    reconcile.reconcile()
    bench.session.refresh_from_db()
    assert (status_of(late.id), bench.session.condemned) == ("failed", "")


def test_step_that_breaks_does_not_stop_the_other_repairs(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken() -> bool:
        raise RuntimeError("one bad row")

    bench.does("work", boom)
    task = submit_task(bench.project, node(retry=ONCE_MORE))
    bench.step(task)
    make_due(task)
    monkeypatch.setattr(reconcile, "STEPS", (broken, *reconcile.STEPS))
    reconcile.reconcile()
    assert status_of(task.id) == "queued"


def test_fleet_of_agents_does_not_multiply_the_hints(bench: Bench) -> None:
    task = submit_task(bench.project, node())
    hinted = []
    for number in range(3):
        agent = Agent.objects.create(
            project=bench.project, name=f"w{number}", kind="worker", capabilities=["work"]
        )
        session = sessions.start(agent, queues=[task.queue])
        sessions.ready(session.id)
        hinted.append(Task.objects.get(id=task.id).hinted_at)
    assert hinted[0] is not None
    assert hinted == hinted[:1] * 3, "by the first one only"


def test_hints_are_repeated_with_growing_patience(bench: Bench) -> None:
    task = submit_task(bench.project, node())
    worker = Agent.objects.create(
        project=bench.project, name="w", kind="worker", capabilities=["work"]
    )
    sessions.ready(sessions.start(worker, queues=[task.queue]).id)
    stale_s = load_config().hint_stale_s
    for hints in range(3):
        recently = timezone.now() - timedelta(seconds=stale_s * 2**hints * 0.9)
        Task.objects.filter(id=task.id).update(hinted_at=recently)
        reconcile.repeat_hints()
        assert Task.objects.get(id=task.id).hints == hints, "too early"
        long_ago = timezone.now() - timedelta(seconds=stale_s * 2**hints * 1.1)
        Task.objects.filter(id=task.id).update(hinted_at=long_ago)
        reconcile.repeat_hints()
        assert Task.objects.get(id=task.id).hints == hints + 1


def test_new_agent_wakes_the_tasks_that_waited_for_it(bench: Bench) -> None:
    task = submit_task(bench.project, node())
    Task.objects.filter(id=task.id).update(hints=5, hinted_at=timezone.now())
    worker = Agent.objects.create(
        project=bench.project, name="w", kind="worker", capabilities=["work"]
    )
    sessions.ready(sessions.start(worker, queues=[task.queue]).id)
    task.refresh_from_db()
    assert task.hints == 1, "forgotten, then hinted at once"


def test_polling_agents_get_the_most_urgent_first_and_only_what_they_can_do(bench: Bench) -> None:
    low = submit_task(bench.project, node(), priority=1)
    high = submit_task(bench.project, node(requires=("gpu",)), priority=9)
    submit_task(bench.project, node(requires=("tpu",)), priority=9)
    submit_task(bench.project, node(capability="cooking"), priority=9)
    assert [task.id for task in poll(bench.session.id, 10)] == [high.id, low.id]
    assert poll(bench.session.id, 10) == []


def test_other_projects_tasks_are_out_of_reach(bench: Bench) -> None:
    other = Project.objects.create(slug="elsewhere")
    submit_task(other, node())
    assert poll(bench.session.id, 10) == []


def test_hint_without_an_agent_in_the_process_is_ignored(project: Project) -> None:
    task = submit_task(project, node())
    assert execute(task.id, 1, ()) is Outcome.STALE
    assert status_of(task.id) == "queued"


def test_doubled_hint_of_a_completed_task_lets_the_canvas_go_on(bench: Bench) -> None:
    task = submit_task(bench.project, node())
    assert bench.step(task) is Outcome.COMPLETED
    assert execute(task.id, 1, ()) is Outcome.COMPLETED
    assert execute(uuid7(), 1, ()) is Outcome.STALE


def test_nothing_is_hinted_when_the_submitting_transaction_rolls_back(project: Project) -> None:
    def submit_and_fail() -> None:
        with transaction.atomic():
            submit_task(project, node())
            raise RuntimeError

    with pytest.raises(RuntimeError):
        submit_and_fail()
    assert not Task.objects.exists()
    assert not Run.objects.exists()


@pytest.mark.parametrize("priority", [-1, 10])
def test_priority_outside_the_scale_is_refused(project: Project, priority: int) -> None:
    with pytest.raises(InvalidError) as caught:
        submit_task(project, node(), priority=priority)
    assert caught.value.problems[0].path == "priority"


def test_graph_names_its_cycle() -> None:
    nodes = [node(key="a", needs=("c",)), node(key="b", needs=("a",)), node(key="c", needs=("b",))]
    with pytest.raises(InvalidError) as caught:
        Graph.of(nodes)
    assert "wait for each other" in caught.value.problems[0].message


def test_graph_refuses_unknown_needs_and_double_keys() -> None:
    with pytest.raises(InvalidError):
        Graph.of([node(needs=("nobody",))])
    with pytest.raises(InvalidError):
        Graph.of([node(), node()])


def test_expired_answers_and_orphaned_payloads_are_cleaned_up(bench: Bench) -> None:
    from opscore.models import IdempotentAnswer
    from tasks.housekeeping import clean_up

    old = timezone.now() - timedelta(days=2)
    kept = Payload.objects.create(project=bench.project, content=b"x", size=1)
    task = submit_task(bench.project, node())
    Task.objects.filter(id=task.id).update(result_ref=kept.id)
    Payload.objects.create(project=bench.project, content=b"y", size=1)
    IdempotentAnswer.objects.create(project=bench.project, key="k", target="t", body_digest="d")
    Payload.objects.update(created_at=old)
    IdempotentAnswer.objects.update(created_at=old)
    clean_up()
    assert list(Payload.objects.values_list("id", flat=True)) == [kept.id]
    assert not IdempotentAnswer.objects.exists()
