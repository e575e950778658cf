"""The broker's queue stays as long as the work is, whoever reconciles and however often."""

from __future__ import annotations

import threading

import pytest
from django.db import connection

from opscore.database import query
from tasks.backlog import FORK, SMALLEST_WINDOW
from tasks.models import Task
from tasks.reconcile import reconcile
from tests.engine.conftest import Bench
from tests.engine.queue import Queue

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.mark.slow
def test_backlog_does_not_multiply_its_hints(queue: Queue) -> None:
    queue.submit(100)
    assert queue.length() == FORK
    for _ in range(20):
        queue.pass_time(1.0)
        reconcile()
        assert queue.length() == FORK


def test_hints_that_were_lost_come_again(queue: Queue) -> None:
    queue.submit(20)
    queue.empty()
    queue.pass_time(6.0)
    reconcile()
    assert queue.length() == FORK


def test_five_reconcilers_at_once_do_everything_once(queue: Queue, bench: Bench) -> None:
    queue.submit(300)
    queue.empty()
    Task.objects.filter(queue=queue.name).update(status="retrying")
    query("UPDATE tasks_task SET wake_at = now() WHERE queue = %(q)s", {"q": queue.name})
    start = threading.Barrier(5)

    def repair() -> None:
        start.wait()
        reconcile()
        connection.close()

    threads = [threading.Thread(target=repair) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert Task.objects.filter(queue=queue.name, status="queued").count() == 300
    assert queue.length() <= FORK + SMALLEST_WINDOW
