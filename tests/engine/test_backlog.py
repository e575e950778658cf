"""The broker's queue stays as long as the work is, whoever reconciles and however often."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from uuid import uuid4

import pytest
import redis
from django.db import connection

from agents import registry, sessions
from agents.queues import queue_name
from opscore.database import query
from opscore.models import Project
from tasks.graph import Node
from tasks.models import Task
from tasks.reconcile import reconcile
from tasks.submission import submit_task
from tests.engine.conftest import Bench

pytestmark = pytest.mark.django_db(transaction=True)


class Queue:
    """A queue that a live agent serves but does not read."""

    def __init__(self, project: Project) -> None:
        self.project = project
        self.capability = f"backlog-{uuid4().hex[:8]}"
        self.name = queue_name(project.slug, self.capability)
        agent = registry.register(
            project, name=self.capability, kind="remote", capabilities=[self.capability]
        )[0]
        session = sessions.start(agent, queues=[self.name])
        sessions.ready(session.id)
        sessions.served_queues(max_age_s=0)
        reconcile()  # a broker that nobody knows yet counts as one that lost its memory
        self._broker = redis.Redis.from_url(os.environ["OPSCORE_BROKER_URL"])

    def submit(self, count: int) -> None:
        for _ in range(count):
            submit_task(self.project, Node(key="one", capability=self.capability))

    def length(self) -> int:
        """Count the messages of all priorities."""
        keys = self._broker.keys(f"{self.name}*")
        return sum(int(self._broker.llen(key)) for key in keys)

    def empty(self) -> None:
        for key in self._broker.keys(f"{self.name}*"):
            self._broker.delete(key)

    def pass_time(self, seconds: float) -> None:
        """Make every hint older: the time is the rows', nobody sleeps."""
        query(
            """UPDATE tasks_task SET hinted_at = hinted_at - make_interval(secs => %(s)s)
                WHERE queue = %(queue)s AND hinted_at > '2000-01-01'""",
            {"s": seconds, "queue": self.name},
        )


@pytest.fixture
def queue(project: Project) -> Iterator[Queue]:
    queue = Queue(project)
    yield queue
    queue._broker.close()


@pytest.mark.slow
def test_backlog_does_not_multiply_its_hints(queue: Queue) -> None:
    queue.submit(500)
    assert queue.length() == 500
    for _ in range(20):
        queue.pass_time(1.0)
        reconcile()
        ready = Task.objects.filter(queue=queue.name, status="queued").count()
        print(f"{queue.length()} messages for {ready} tasks")
        assert queue.length() <= 1.1 * ready


def test_hints_that_were_lost_come_again(queue: Queue) -> None:
    queue.submit(20)
    queue.empty()
    queue.pass_time(6.0)
    reconcile()
    assert queue.length() == 20


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
    assert queue.length() == 300
