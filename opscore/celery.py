"""The Celery app. Jobs live in each app's `jobs.py`; messages carry ids only."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

import django
from celery import Celery
from celery.signals import import_modules, setup_logging, task_postrun
from django.apps import apps

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "opscore.settings")

# Celery's own Django fixup closes the database connection around every task; the engine
# keeps it (a new one costs 3 ms) and drops it only when it is broken.
app = Celery("opscore", fixups=[], set_as_current=True)
app.config_from_object("django.conf:settings", namespace="CELERY")


@import_modules.connect(weak=False)
def _set_up_django(**_: Any) -> None:
    """Make the models usable where the `celery` command is the program: beat, plain workers."""
    if not apps.models_ready:
        django.setup()


# Behind the receiver above: the jobs are imported by the same signal, and need the models.
app.autodiscover_tasks(["agents", "tasks", "workflows"], related_name="jobs")


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
