"""Who goes first: priority, then the turns of tenants and their runs, then age."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agents import sessions
from agents.models import AgentSession
from opscore.database import query
from opscore.models import Project
from tasks import backlog, control
from tasks.claims import poll, put_back
from tasks.execution import Outcome, execute
from tasks.graph import Graph, Node
from tasks.models import Run, Task
from tasks.reconcile import reconcile
from tasks.reruns import rerun
from tasks.submission import start_run
from tasks.transitions import work
from tasks.why import explain, explain_run
from tests.engine.conftest import Bench
from tests.engine.plans import most_read
from tests.engine.queue import Queue

pytestmark = pytest.mark.django_db(transaction=True)


def wide(count: int, capability: str = "work") -> Graph:
    return Graph.of([Node(key=f"t{n}", capability=capability) for n in range(count)])


def start(queue: Queue, count: int, tenant: str = "", priority: int = 5) -> Run:
    graph = wide(count, queue.capability)
    return start_run(queue.project, graph, inputs={}, fairness_key=tenant, priority=priority)


def polled(session_id: UUID, count: int, at_once: int = 1) -> list[Task]:
    """Claim so many tasks as an agent that polls; the newest claims come last."""
    taken: list[Task] = []
    while len(taken) < count:
        claims = poll(session_id, min(at_once, count - len(taken)))
        if not claims:
            break
        rows = Task.objects.select_related("run").in_bulk([one.id for one in claims])
        taken += [rows[one.id] for one in claims]
    return [task for task in taken if task.uses != "end"]


def assert_turns(order: Sequence[str], queued: dict[str, int]) -> None:
    """Between three turns of one, everybody who still has work has had one at least."""
    for one in queued:
        turns = [place for place, who in enumerate(order) if who == one]
        for first, third in zip(turns, turns[2:], strict=False):
            between = set(order[first:third])
            for other, count in queued.items():
                assert order[: third + 1].count(other) == count or other in between, order


loads = st.lists(
    st.tuples(st.sampled_from("abc"), st.integers(1, 6), st.sampled_from([2, 5, 9])),
    min_size=1,
    max_size=7,
)


@given(loads=loads, at_once=st.sampled_from([1, 1, 3]))
@settings(
    max_examples=12,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
def test_everybody_with_work_has_a_turn_in_every_round(
    bench: Bench, loads: list[tuple[str, int, int]], at_once: int
) -> None:
    Run.objects.all().delete()
    for tenant, count, priority in loads:
        graph = wide(count)
        start_run(bench.project, graph, inputs={}, fairness_key=tenant, priority=priority)
    order = polled(bench.session.id, 100, at_once)
    assert len(order) == sum(count for _, count, _ in loads)
    assert [task.priority for task in order] == sorted(
        (task.priority for task in order), reverse=True
    )
    for priority in (2, 5, 9):
        served = [task for task in order if task.priority == priority]
        tenants = [task.run.fairness_key for task in served]
        assert_turns(tenants, {one: tenants.count(one) for one in tenants})
        for tenant in set(tenants):
            runs = [str(task.run_id) for task in served if task.run.fairness_key == tenant]
            assert_turns(runs, {run: runs.count(run) for run in runs})
    for run in {task.run_id for task in order}:
        numbers = [task.number for task in order if task.run_id == run]
        assert numbers == sorted(numbers), "within a run it is age"


def test_tasks_of_one_tenant_that_are_runs_of_their_own_go_by_age(bench: Bench) -> None:
    made = [start_run(bench.project, wide(1), inputs={}).id for _ in range(30)]
    assert [task.run_id for task in polled(bench.session.id, 30)] == made


def test_who_comes_all_the_time_does_not_keep_others_from_their_turn(bench: Bench) -> None:
    start_run(bench.project, wide(20), inputs={}, fairness_key="big")
    served: list[str] = []
    for _ in range(40):
        # Twice as many as are done: of ever new tenants.
        for _ in range(2):
            new = f"new-{len(served)}-{_}"
            start_run(bench.project, wide(1), inputs={}, fairness_key=new)
        served += [task.run.fairness_key for task in polled(bench.session.id, 1)]
    big = [place for place, who in enumerate(served) if who == "big"]
    gaps = [later - earlier for earlier, later in pairwise(big)]
    # The line of new ones grows by one a step, so a round does too; it never stands still.
    assert len(big) >= 5, served
    assert max(gaps) <= 20, gaps


# ------------------------------------------------------------ the window
def test_small_run_behind_a_large_one_of_the_same_tenant(queue: Queue) -> None:
    large = start(queue, 100, "ada")
    small = start(queue, 10, "ada")
    order = []
    while small.tasks.filter(status="queued").exclude(uses="end").exists():
        order.append(queue.take())
    assert len(order) <= backlog.FORK + backlog.SMALLEST_WINDOW + 2 * 10
    assert sum(task.run_id == large.id for task in order if task) <= 30


def test_small_tenant_behind_a_large_one(queue: Queue) -> None:
    queue.submit(60, fairness_key="large")
    small = queue.submit(10, fairness_key="small")
    order = [queue.take() for _ in range(backlog.FORK + backlog.SMALLEST_WINDOW + 2 * 10)]
    assert set(small) <= {task.pk for task in order if task}


def test_nine_behind_a_backlog_of_ones_is_next(queue: Queue) -> None:
    queue.submit(40, priority=1)
    taken = queue.take()
    assert taken
    assert taken.priority == 1
    urgent = queue.submit(3, priority=9)
    assert [task.pk for task in (queue.take(), queue.take(), queue.take()) if task] == urgent


def test_only_a_window_is_hinted_and_claims_fill_it_up(queue: Queue) -> None:
    queue.submit(60)
    assert queue.length() == backlog.FORK
    for left in range(59, -1, -1):
        assert queue.take(), f"nothing was hinted of {left + 1}"
        assert queue.length() <= backlog.FORK
        assert left == 0 or queue.length() > 0, "the next one is on its way"
    assert queue.take() is None


def test_window_grows_with_the_slots(queue: Queue) -> None:
    queue.submit(100)
    AgentSession.objects.filter(pk=queue.session_id).update(slots=24)
    sessions.served_slots(max_age_s=0)
    reconcile()
    assert queue.length() == 48


def test_small_queue_beside_a_large_one_is_not_filled_up_by_each_claim(
    queue: Queue, project: Project
) -> None:
    large = Queue(project)
    AgentSession.objects.filter(pk=large.session_id).update(slots=40)
    sessions.served_slots(max_age_s=0)
    queue.submit(backlog.FORK + 9)
    lengths = []
    for _ in range(backlog.FORK + 9):
        assert queue.take()
        lengths.append(queue.length())
    half = backlog.SMALLEST_WINDOW // 2
    assert lengths[:13] == [*range(backlog.FORK - 1, half, -1)]
    assert set(lengths[13:-3]) == {half + 1, backlog.SMALLEST_WINDOW}
    large.close()


def test_fork_wider_than_the_window_joins_in_the_database(queue: Queue, bench: Bench) -> None:
    heads = [Node(key=f"h{n}", capability=queue.capability) for n in range(30)]
    join = Node(key="join", capability="work", needs=tuple(node.key for node in heads))
    run = start_run(queue.project, Graph.of([*heads, join]), inputs={})
    bench.does(queue.capability, lambda task: None)
    bench.finish(run)
    run.refresh_from_db()
    assert run.status == "completed"


# ------------------------------------------------------------ what can go wrong
def test_hints_of_a_paused_run_leave_the_window_to_others(queue: Queue) -> None:
    paused = start(queue, 30)
    control.pause_run(paused.id)
    others = queue.submit(3)
    assert [task.pk for task in (queue.take(), queue.take(), queue.take()) if task] == others
    control.resume_run(paused.id)
    reconcile()
    taken = [queue.take() for _ in range(30)]
    assert {task.run_id for task in taken if task} == {paused.id}
    assert len([task for task in taken if task]) == 30


def test_hint_that_comes_to_nothing_makes_room(queue: Queue, bench: Bench) -> None:
    first = start(queue, 16)
    behind = queue.submit(5)
    control.cancel_run(first.id)
    stale = [queue.next_message() for _ in range(16)]
    assert queue.length() == 0
    for task_id in stale:
        assert task_id
        assert execute(task_id, 1, ()) is Outcome.STALE
    assert queue.length() == backlog.SMALLEST_WINDOW
    taken = queue.take()
    assert taken
    assert taken.pk == behind[0]


def test_tasks_that_are_cancelled_leave_the_window_before_their_hints_do(queue: Queue) -> None:
    first = start(queue, backlog.FORK)
    queue.submit(backlog.FORK)
    control.cancel_run(first.id)
    reconcile()
    assert queue.length() == backlog.FORK + backlog.SMALLEST_WINDOW
    stale = [found for _ in range(backlog.FORK) if (found := queue.next_message())]
    assert len(stale) == backlog.FORK
    assert not Task.objects.filter(pk__in=stale, status="queued").exists()


def test_worker_that_dies_between_claim_and_refill_is_made_good(queue: Queue) -> None:
    queue.submit(20)
    for _ in range(backlog.FORK):
        params = {"id": queue.next_message(), "attempt": 1, "session": queue.session_id, "low": 2}
        assert query(work.CLAIM, params)
    assert queue.length() == 0
    reconcile()
    assert queue.length() == 20 - backlog.FORK


def test_flushed_broker_with_a_backlog_gets_back_what_it_had(queue: Queue) -> None:
    ids = queue.submit(40)
    queue.empty()
    queue.pass_time(6.0)
    reconcile()
    assert queue.length() == backlog.FORK
    assert [task.pk for task in (queue.take() for _ in range(40)) if task] == ids


def test_hint_that_is_repeated_keeps_its_place(queue: Queue) -> None:
    ids = queue.submit(40)
    lost = queue.next_message()
    queue.pass_time(6.0)
    reconcile()
    order = [task.pk for task in (queue.take() for _ in range(40)) if task]
    assert lost == ids[0]
    assert order.index(lost) <= backlog.FORK


def test_backlog_of_agents_that_left_is_taken_by_those_who_poll(
    queue: Queue, project: Project
) -> None:
    ids = queue.submit(20)
    sessions.end([queue.session_id], "stopped")
    sessions.served_slots(max_age_s=0)
    poller = sessions.start(AgentSession.objects.get(pk=queue.session_id).agent)
    sessions.ready(poller.id)
    assert {task.pk for task in polled(poller.id, 20, at_once=7)} == set(ids)


def test_given_back_tasks_of_agents_that_poll_keep_their_turns(bench: Bench) -> None:
    start_run(bench.project, wide(30), inputs={}, fairness_key="large")
    start_run(bench.project, wide(3), inputs={}, fairness_key="small")
    lost, unheard = polled(bench.session.id, 2)
    put_back([unheard.pk], bench.session.id)
    bench.reborn()
    first, second = polled(bench.session.id, 2)
    assert {first.pk, second.pk} == {lost.pk, unheard.pk}


def test_backlog_that_waited_for_an_agent_is_hinted_when_one_appears(project: Project) -> None:
    early = Queue(project)
    sessions.end([early.session_id], "stopped")
    sessions.served_slots(max_age_s=0)
    early.submit(30)
    assert early.length() == 0
    agent = AgentSession.objects.get(pk=early.session_id).agent
    late = sessions.start(agent, queues=[early.name])
    sessions.ready(late.id)
    assert early.length() == backlog.SMALLEST_WINDOW
    early.close()


# ------------------------------------------------------------ whose work it is
def test_runs_inside_and_again_belong_to_the_same_tenant(bench: Bench) -> None:
    run = start_run(bench.project, wide(1), inputs={}, fairness_key="ada", actor="key-1")
    control.cancel_run(run.id)
    assert rerun(run.id).fairness_key == "ada"
    assert start_run(bench.project, wide(1), inputs={}, actor="key-1").fairness_key == "key-1"


def test_why_counts_in_the_order_of_turns(queue: Queue) -> None:
    queue.submit(40, fairness_key="large")
    small = queue.submit(1, fairness_key="small")[0]
    last = Task.objects.filter(queue=queue.name, run__fairness_key="large").latest("id")
    assert queue.take()
    said = [reason.message for reason in explain(Task.objects.get(pk=small)).reasons]
    assert f"{backlog.FORK - 1 + 2} tasks of the same queue come before it." in said
    reasons = {one.code: one.message for one in explain(last).reasons}
    assert reasons["queue"].startswith("39 tasks")
    assert reasons["fair_share"].startswith("1 of them became ready after it")


def test_why_counts_for_many_tasks_as_for_each_alone(bench: Bench) -> None:
    sessions.ready(bench.session.pk)
    run = start_run(bench.project, wide(40), inputs={}, fairness_key="large")
    start_run(bench.project, wide(20), inputs={}, fairness_key="small")
    assert poll(bench.session.pk, 1)
    found = explain_run(run)
    codes = {reason.code for one in found for reason in one.reasons}
    assert codes == {"agent", "all_busy", "queue", "fair_share"}
    for one in found:
        assert one.reasons == explain(one.task).reasons


# ------------------------------------------------------------ cost
def test_poll_reads_no_more_than_it_may_take(bench: Bench) -> None:
    start_run(bench.project, wide(2000), inputs={})
    params = {"session": bench.session.id, "limit": 1, "reach": 65, "bare": ["default.work"]}
    assert most_read(work.POLL, params, "tasks_task") <= 200
