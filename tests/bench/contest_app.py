"""Plain Celery as a team would write it: the yardstick of `tests.bench.contest`."""

from __future__ import annotations

import os
import time
from typing import Any

from celery import Celery

app = Celery("contest")
app.conf.update(
    broker_url=os.environ["CONTEST_BROKER"],
    result_backend=os.environ["CONTEST_RESULTS"],
    broker_connection_retry_on_startup=True,
)
if os.environ["CONTEST_BROKER"].startswith("amqp"):
    # Its best on RabbitMQ, and the setting with which it survives a killed worker.
    app.conf.update(task_acks_late=True, worker_prefetch_multiplier=1)


@app.task
def work(ms: float = 0, log: str = "") -> float:
    """Take so long; return when it began."""
    began = time.time()
    if ms:
        time.sleep(ms / 1000)
    if log:
        with open(log, "a") as file:
            file.write(f"{time.time()}\n")
    return began


@app.task
def join(results: Any) -> float:
    """Take what a group returned."""
    return time.time()
