"""Who waits for the shared context while a transactional handler writes to it, and how long."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from django.db import connection, connections, transaction

from agents.handlers import Context
from opscore.database import query
from opscore.models import Project
from tasks import shared
from tasks.execution import Outcome
from tasks.graph import Node
from tasks.models import Run
from tasks.submission import submit_task
from tasks.writers import Writer
from tests.engine.conftest import Bench
from tests.engine.test_shared import SOMEBODY, new_run, put

pytestmark = pytest.mark.django_db(transaction=True)


@contextmanager
def held_by_a_transaction(run: Run) -> Iterator[threading.Event]:
    """A transactional handler has written and goes on until the event is set."""
    begun, gate = threading.Event(), threading.Event()

    def write() -> None:
        with transaction.atomic():
            put(run, "theirs", 1, writer=Writer("agent:slow", with_result=True))
            begun.set()
            gate.wait(20)
        connections.close_all()

    thread = threading.Thread(target=write)
    thread.start()
    assert begun.wait(20)
    try:
        yield gate
    finally:
        gate.set()
        thread.join()


def test_writer_outside_is_told_when_a_transaction_keeps_it_waiting(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared, "WAIT_S", 0.1)
    run = new_run(project)
    with held_by_a_transaction(run):
        began = time.monotonic()
        with pytest.raises(shared.ContextBusyError) as refused:
            put(run, "mine", 1)
        assert time.monotonic() - began < 10
        assert (refused.value.status, connection.in_atomic_block) == (503, False)
        with pytest.raises(shared.ContextBusyError):
            shared.delete(run.pk, "theirs", writer=SOMEBODY)
    assert put(run, "mine", 1)[1]
    [row] = query("SELECT current_setting('lock_timeout') AS ms", {})
    assert row["ms"] == "0", "the bound is the write's own"


def test_handler_waits_for_a_transaction_however_long(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared, "WAIT_S", 0.05)

    def work(task: Context) -> Any:
        return task.shared.put("mine", 1).version

    bench.does("work", work)
    task = submit_task(bench.project, Node(key="job", capability="work"))
    with held_by_a_transaction(task.run) as gate:
        timer = threading.Timer(0.5, gate.set)
        timer.start()
        assert bench.step(task) is Outcome.COMPLETED
        timer.join()
    task.refresh_from_db()
    assert task.result == 2
