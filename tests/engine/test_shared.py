"""The shared context of a run: compare-and-set, bounds, and writers whose attempt is over."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from typing import Any
from uuid import uuid4

import pytest
from django.db import connection, connections, transaction
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from agents import sessions
from agents.handlers import Context, HandlerError, Registered, VersionConflictError
from opscore.config import load_config
from opscore.errors import ConflictError, InvalidError, NotFoundError, TooLargeError
from opscore.models import Event, Project
from tasks import shared
from tasks.claims import claim
from tasks.control import cancel_run
from tasks.execution import Outcome
from tasks.graph import Graph, Node
from tasks.models import Run, SharedTotal, Task
from tasks.reconcile import give_back
from tasks.submission import start_run, submit_task
from tasks.writers import AttemptOverError, Writer, attempt_writer
from tests.engine.conftest import Bench, error_of

pytestmark = pytest.mark.django_db(transaction=True)

SOMEBODY = Writer("key:test")


def new_run(project: Project) -> Run:
    return submit_task(project, Node(key="job", capability="work")).run


def put(run: Run, key: str, value: Any, **options: Any) -> tuple[Any, bool]:
    return shared.put(run.pk, key, value, writer=options.pop("writer", SOMEBODY), **options)


class Machine(RuleBasedStateMachine):
    """The verbs against a dictionary; one run, three keys, any version that was ever seen."""

    keys = st.sampled_from(["a", "b", "c"])
    values = st.recursive(
        st.none()
        | st.booleans()
        | st.integers(-(2**60), 2**60)
        | st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])),
        lambda inner: st.lists(inner, max_size=3),
        max_leaves=5,
    )

    @initialize()
    def start(self) -> None:
        project = Project.objects.get_or_create(slug="default")[0]
        self.run = new_run(project)
        self.model: dict[str, tuple[int, Any]] = {}
        self.seen = [0]

    def expected(self, key: str, if_version: int | None) -> bool:
        return if_version is None or if_version == self.model.get(key, (0, None))[0]

    @rule(key=keys, value=values, pick=st.none() | st.integers(0, 50))
    def writes(self, key: str, value: Any, pick: int | None) -> None:
        if_version = None if pick is None else self.seen[-1 - pick % len(self.seen)]
        try:
            entry, is_new = put(self.run, key, value, if_version=if_version)
        except shared.VersionMismatchError as error:
            assert not self.expected(key, if_version)
            present = error.version
            assert present == self.model.get(key, (0, None))[0]
        else:
            assert self.expected(key, if_version)
            assert is_new is (key not in self.model)
            assert entry.version > max(self.seen), "a version never comes back"
            self.seen.append(entry.version)
            self.model[key] = (entry.version, value)
        self.compare()

    @rule(key=keys, pick=st.none() | st.integers(0, 50))
    def deletes(self, key: str, pick: int | None) -> None:
        if_version = None if pick is None else self.seen[-1 - pick % len(self.seen)]
        try:
            was_there = shared.delete(self.run.pk, key, writer=SOMEBODY, if_version=if_version)
        except shared.VersionMismatchError:
            assert not self.expected(key, if_version)
        else:
            assert self.expected(key, if_version)
            assert was_there is (key in self.model)
            self.model.pop(key, None)
        self.compare()

    def compare(self) -> None:
        found = {entry.key: (entry.version, entry.value) for entry in shared.entries(self.run.pk)}
        assert found == self.model
        for key in ("a", "b", "c"):
            entry = shared.get(self.run.pk, key)
            assert (entry and (entry.version, entry.value)) == self.model.get(key)
        total = SharedTotal.objects.filter(run=self.run).first()
        entries = list(self.run.shared.all())
        assert (total.entries if total else 0) == len(entries)
        assert (total.bytes if total else 0) == sum(entry.size for entry in entries)


def test_context_does_what_a_dictionary_with_versions_does(project: Project) -> None:
    run_state_machine_as_test(
        Machine,
        settings=settings(
            max_examples=25,
            stateful_step_count=20,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )


def test_of_two_writers_at_once_exactly_one_wins_each_version(project: Project) -> None:
    run = new_run(project)
    put(run, "n", 0)
    together = threading.Barrier(2)

    def count(_: int) -> int:
        conflicts = 0
        together.wait(10)
        try:
            for _ in range(50):
                while True:
                    now = shared.get(run.pk, "n")
                    assert now is not None
                    try:
                        put(run, "n", now.value + 1, if_version=now.version)
                        break
                    except shared.VersionMismatchError:
                        conflicts += 1
        finally:
            connections.close_all()
        return conflicts

    with ThreadPoolExecutor(2) as pool:
        conflicts = sum(pool.map(count, range(2)))
    entry = shared.get(run.pk, "n")
    assert entry is not None
    assert (entry.value, entry.version) == (100, 101)
    assert conflicts, "the two never met: this test proves nothing"


def test_only_one_of_many_creates(project: Project) -> None:
    run = new_run(project)
    together = threading.Barrier(4)

    def create(number: int) -> bool:
        together.wait(10)
        try:
            return put(run, "lock", number, if_version=0)[1]
        except shared.VersionMismatchError:
            return False
        finally:
            connections.close_all()

    with ThreadPoolExecutor(4) as pool:
        assert sorted(pool.map(create, range(4))) == [False, False, False, True]


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("entries", 2), ("value_bytes", 20), ("run_bytes", 25)):
        monkeypatch.setattr(load_config(), f"shared_{name}", value)


def test_bounds_hold(project: Project, small: None, monkeypatch: pytest.MonkeyPatch) -> None:
    run = new_run(project)
    with pytest.raises(TooLargeError, match="OPSCORE_SHARED_VALUE_BYTES"):
        put(run, "a", "é" * 10)  # 22 bytes with its quotes
    put(run, "a", "x" * 18)
    with pytest.raises(TooLargeError, match="OPSCORE_SHARED_RUN_BYTES"):
        put(run, "b", "12345")
    put(run, "b", "123")
    with pytest.raises(TooLargeError, match="OPSCORE_SHARED_ENTRIES"):
        put(run, "c", "")
    put(run, "a", 1)
    assert shared.delete(run.pk, "b", writer=SOMEBODY)
    put(run, "c", "")
    # Above a bound that was lowered, what does not grow may still be written.
    monkeypatch.setattr(load_config(), "shared_entries", 1)
    put(run, "c", "yes")
    monkeypatch.setattr(load_config(), "shared_run_bytes", 1)
    put(run, "c", "no")
    assert {entry.key: entry.value for entry in shared.entries(run.pk)} == {"a": 1, "c": "no"}


@pytest.mark.parametrize("key", ["", "a/b", "../etc", ".", "a b", "x" * 201, "a\0", "ä"])
def test_keys_that_would_not_fit_an_address_are_refused(project: Project, key: str) -> None:
    with pytest.raises(InvalidError):
        put(new_run(project), key, 1)


@pytest.mark.parametrize("value", [object(), float("nan"), "\0", "\ud800", {1: {2}}])
def test_values_that_are_no_json_are_refused(project: Project, value: Any) -> None:
    run = new_run(project)
    with pytest.raises(InvalidError):
        put(run, "a", value)
    assert shared.entries(run.pk) == []


def test_value_far_above_every_bound_is_too_large(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(load_config(), "max_result_bytes", 100)
    with pytest.raises(TooLargeError):
        put(new_run(project), "a", "x" * 200)


def test_ended_run_is_read_only(project: Project) -> None:
    run = new_run(project)
    put(run, "a", 1)
    cancel_run(run.pk)
    with pytest.raises(ConflictError, match="read-only"):
        put(run, "a", 2)
    with pytest.raises(ConflictError, match="read-only"):
        shared.delete(run.pk, "a", writer=SOMEBODY)
    entry = shared.get(run.pk, "a")
    assert entry is not None
    assert entry.value == 1
    with pytest.raises(NotFoundError):
        shared.put(uuid4(), "a", 1, writer=SOMEBODY)


def test_zombie_cannot_write(bench: Bench) -> None:
    task = submit_task(bench.project, Node(key="job", capability="work"))
    held = claim(task.id, 1, bench.session.id)
    assert held is not None
    zombie = attempt_writer(bench.project.pk, task.id, held.fence)
    assert zombie is not None
    assert zombie.name == "agent:bench"
    put(task.run, "a", 1, writer=zombie)
    bench.reborn()
    with pytest.raises(AttemptOverError):
        put(task.run, "a", 2, writer=zombie)
    with pytest.raises(AttemptOverError):
        shared.delete(task.run_id, "a", writer=zombie)
    entry = shared.get(task.run_id, "a")
    assert entry is not None
    assert (entry.value, entry.updated_by) == (1, "agent:bench")
    refused = Event.objects.filter(kind="write.refused", task_id=task.id)
    assert [event.data["fence"] for event in refused] == [held.fence] * 2
    assert attempt_writer(bench.project.pk, task.id, held.fence) is None


def test_attempt_is_not_given_away_while_it_writes(bench: Bench) -> None:
    task = submit_task(bench.project, Node(key="job", capability="work"))
    held = claim(task.id, 1, bench.session.id)
    assert held is not None
    zombie = Writer("agent:bench", task.id, held.fence)
    put(task.run, "a", 1, writer=zombie)
    started = threading.Event()

    def blocked() -> str:
        started.set()
        try:
            put(task.run, "a", 2, writer=zombie)
        except AttemptOverError:
            return "refused"
        finally:
            connections.close_all()
        return "written"

    # The zombie's write waits behind the transaction that gives its attempt away.
    with ThreadPoolExecutor(1) as pool:
        with transaction.atomic():
            sessions.close([bench.session.id], "killed")
            give_back([bench.session.id])
            waiting = pool.submit(blocked)
            assert started.wait(10)
            while not _somebody_waits_for_a_lock():
                assert not waiting.done(), "it did not wait"
        assert waiting.result(10) == "refused"


def _somebody_waits_for_a_lock() -> bool:
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM pg_locks WHERE NOT granted")
        row = cursor.fetchone()
    return bool(row and row[0])


# ------------------------------------------------------------ handlers


def test_handlers_of_a_run_share_its_context(bench: Bench) -> None:
    def work(task: Context) -> Any:
        made = task.shared.put("seen", [task.key], if_version=0)
        assert task.shared.get("nothing") is None
        return made.version

    def other(task: Context) -> Any:
        entry = task.shared.get("seen")
        assert entry is not None
        task.shared.put("seen", [*entry.value, task.key], if_version=entry.version)
        with pytest.raises(VersionConflictError) as conflict:
            task.shared.delete("seen", if_version=entry.version)
        assert conflict.value.version == entry.version + 1
        assert task.shared.put("gone", None).updated_by == "agent:bench"
        assert task.shared.delete("gone")
        assert not task.shared.delete("gone")
        return [found.value for found in task.shared.entries()]

    bench.does("work", work)
    bench.does("other", other)
    nodes = [Node(key="a", capability="work"), Node(key="b", capability="other", needs=("a",))]
    run = bench.finish(start_run(bench.project, Graph.of(nodes), inputs={}))
    assert run.status == "completed"
    assert Task.objects.get(key="b").result == [["a", "b"]]


def test_conflict_that_a_handler_leaves_alone_fails_its_attempt(bench: Bench) -> None:
    def work(task: Context) -> None:
        task.shared.put("a", 1)
        task.shared.put("a", 2, if_version=0)

    bench.does("work", work)
    task = submit_task(bench.project, Node(key="job", capability="work"))
    assert bench.step(task) is Outcome.FAILED
    task.refresh_from_db()
    assert error_of(task)["type"] == "version_conflict"


def test_bad_key_fails_the_attempt_for_good(bench: Bench) -> None:
    bench.does("work", lambda task: task.shared.put("a/b", 1))
    task = submit_task(bench.project, Node(key="job", capability="work"))
    assert bench.step(task) is Outcome.FAILED
    task.refresh_from_db()
    assert (error_of(task)["type"], error_of(task)["retryable"]) == ("invalid", False)


def test_handler_whose_attempt_is_over_writes_nothing(bench: Bench) -> None:
    def work(task: Context) -> None:
        bench.reborn()
        with pytest.raises(HandlerError) as refused:
            task.shared.put("a", 1)
        assert refused.value.type == "attempt_over"
        raise refused.value

    bench.does("work", work)
    task = submit_task(bench.project, Node(key="job", capability="work"))
    assert bench.step(task) is Outcome.STALE
    assert shared.entries(task.run_id) == []


def test_writes_of_a_transactional_handler_vanish_with_its_failure(bench: Bench) -> None:
    def work(task: Context) -> None:
        task.shared.put("a", 1)
        raise HandlerError("no", retryable=False)

    bench.does("work", Registered("work", work, transactional=True))
    task = submit_task(bench.project, Node(key="job", capability="work"))
    assert bench.step(task) is Outcome.FAILED
    assert shared.entries(task.run_id) == []


def test_transactional_handler_that_wrote_may_ask_whether_it_was_cancelled(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The answer comes over another connection: a lock of its own would make it wait for ever."""
    monkeypatch.setattr("tasks.execution._ASK_EVERY_S", 0.0)

    def work(task: Context) -> Any:
        task.shared.put("a", 1)
        task.send({"capability": "other"}, "hello")
        return task.cancelled()

    bench.does("work", Registered("work", work, transactional=True))
    task = submit_task(bench.project, Node(key="job", capability="work"))
    assert bench.step(task) is Outcome.COMPLETED
    task.refresh_from_db()
    assert task.result is False
    assert [entry.value for entry in shared.entries(task.run_id)] == [1]


def test_context_outside_of_a_run_says_what_is_missing() -> None:
    context = Context(uuid4(), uuid4(), "k", "work", 1, {})
    with pytest.raises(HandlerError, match="Outside of a run"):
        context.shared.get("a")
    with pytest.raises(HandlerError, match="Outside of a run"):
        context.send({"agent": "x"}, "topic")
    assert deepcopy(context) is not context
