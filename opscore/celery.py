"""The Celery app. Jobs live in each app's `jobs.py`; messages carry ids only."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from typing import Any
from uuid import uuid4

import django
from celery import Celery
from celery.app.amqp import AMQP, Queues
from celery.signals import import_modules, setup_logging, task_postrun
from django.apps import apps
from kombu import Exchange, Queue

from opscore.errors import UnavailableError
from opscore.schedule import OWN_QUEUE

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "opscore.settings")

#: Seconds without a consumer after which RabbitMQ drops the queue of one agent, hints and all:
#: they are stale by then. Redis has no such thing: `tasks.broker.drop` does it.
OWN_QUEUE_EXPIRES_S = 600.0


class OurQueues(Queues):
    """Celery's queues; those of single agents must not outlive them for long."""

    def new_missing(self, name: str) -> Queue:
        """Return a queue that nobody has declared yet."""
        if not name.startswith(OWN_QUEUE):
            return super().new_missing(name)
        # Without an exchange of its own, which would outlive it.
        return Queue(name, Exchange(""), name, expires=OWN_QUEUE_EXPIRES_S)


class OurAMQP(AMQP):
    """Celery's routing with our queues."""

    queues_cls = OurQueues


# Celery's own Django fixup closes the database connection around every task; the engine
# keeps it (a new one costs 3 ms) and drops it only when it is broken.
app = Celery("opscore", fixups=[], set_as_current=True, amqp=OurAMQP)
app.config_from_object("django.conf:settings", namespace="CELERY")


@import_modules.connect(weak=False)
def _set_up_django(**_: Any) -> None:
    """Make the models usable where the `celery` command is the program: beat, plain workers."""
    if not apps.models_ready:
        django.setup()


# Behind the receiver above: the jobs are imported by the same signal, and need the models.
app.autodiscover_tasks(["opscore", "agents", "tasks", "webhooks", "workflows"], related_name="jobs")


@task_postrun.connect(weak=False)
def _release_connection(**_: Any) -> None:
    from opscore.database import release  # noqa: PLC0415 - Django must be set up first

    release()


@setup_logging.connect(weak=False)
def _keep_our_logging(**_: Any) -> None:
    """Stop Celery from installing its own handlers: Django's LOGGING is the one in force."""


def amqp_lengths(queues: Iterable[str]) -> dict[str, int]:
    """Return how many messages lie in each queue of RabbitMQ; a missing queue is left out."""
    found: dict[str, int] = {}
    with app.connection_for_write(connect_timeout=5) as connection:
        for name in queues:
            # Asking for a queue that does not exist closes the channel.
            channel: Any = connection.channel()
            try:
                found[name] = channel.queue_declare(name, passive=True).message_count
                channel.close()
            except connection.channel_errors:
                continue
    return found


def take_back(connection: Any, patience_s: float) -> None:
    """Send a message and take it back; UnavailableError when it does not come in that time."""
    with connection.channel() as channel:
        name = f"opscore~~echo.{uuid4().hex}"
        queue = Queue(name, durable=False, exclusive=True, auto_delete=True)(channel)
        queue.declare()
        try:
            connection.Producer(channel).publish({}, exchange="", routing_key=name)
            give_up_at = time.monotonic() + patience_s
            while queue.get(no_ack=True) is None:
                if time.monotonic() > give_up_at:
                    raise UnavailableError(f"The broker gave no message back in {patience_s:g} s.")
                time.sleep(0.01)
        finally:
            queue.delete()
