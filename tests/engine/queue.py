"""A queue as the broker and the database see it, and what a slot would take from it."""

from __future__ import annotations

import json
import os
from typing import Any
from uuid import UUID, uuid4

import redis

from agents import registry, sessions
from agents.queues import queue_name
from opscore.database import query
from opscore.models import Project
from tasks.claims import claim
from tasks.graph import Node
from tasks.models import Task
from tasks.reconcile import reconcile
from tasks.submission import submit_task


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
        sessions.served_slots(max_age_s=0)
        reconcile()  # a broker that nobody knows yet counts as one that lost its memory
        self.session_id = session.id
        self._broker = redis.Redis.from_url(os.environ["OPSCORE_BROKER_URL"])

    def submit(self, count: int, **options: Any) -> list[UUID]:
        """Submit tasks on their own; each is a run."""
        node = Node(key="one", capability=self.capability)
        return [submit_task(self.project, node, **options).pk for _ in range(count)]

    def next_message(self) -> UUID | None:
        """Take the message that a worker would get next, and return its task."""
        for step in range(10):
            key = f"{self.name}\x06\x16{step}" if step else self.name
            found: Any = self._broker.rpop(key)
            if found:
                return UUID(json.loads(found)["headers"]["id"])
        return None

    def take(self) -> Task | None:
        """Do what a free slot does: take the next message and claim its task."""
        while task_id := self.next_message():
            if claim(task_id, 1, self.session_id):
                return Task.objects.select_related("run").get(pk=task_id)
        return None

    def close(self) -> None:
        """Leave nothing behind in the broker."""
        self.empty()
        self._broker.close()

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
