"""Handlers and Celery functions that the tests' agents run."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path
from typing import Any

from celery.signals import celeryd_init, worker_ready

from agents import runtime
from agents.handlers import Context, handler
from opscore.celery import app


@handler("echo")
def echo(task: Context) -> Any:
    """Give back what came in."""
    return task.inputs


@handler("slow")
def slow(task: Context) -> Any:
    """Take as long as the inputs say."""
    time.sleep(task.inputs["seconds"])
    return os.getpid()


@handler("hog")
def hog(task: Context) -> Any:
    """Take as much memory as the inputs say."""
    return len(bytearray(task.inputs["bytes"]))


@app.task(name="tests.touch")
def touch(path: str, seconds: float = 0.0) -> None:
    """Write `started` to a file, then `finished` after some seconds."""
    Path(path).write_text(f"started {os.getpid()}")
    time.sleep(seconds)
    Path(path).write_text(f"finished {os.getpid()}")


@app.task(name="tests.spawn_stray")
def spawn_stray(path: str) -> None:
    """Leave a program running that has left the agent's session and process group."""
    line = f"sleep 300 & echo $! > {path}"
    subprocess.Popen(["setsid", "sh", "-c", line])


@celeryd_init.connect(weak=False)
def _on_init(sender: str, **_: Any) -> None:
    """Celery says the worker's node name before it starts."""
    if sender.partition("@")[0] == os.environ.get("OPSCORE_TEST_DIE_AT_START"):
        print("cannot go on", flush=True)
        os._exit(3)


@app.task(name="tests.who")
def who(path: str) -> None:
    """Write which agent ran this."""
    life = runtime.current()
    Path(path).write_text(f"{life.agent} {life.session_id}" if life else "nobody")


@app.task(name="tests.go_deaf")
def go_deaf(seconds: float = 3600.0) -> None:
    """Have this worker take nothing more from its queues, for some seconds."""
    tasks = _consumers[-1].task_consumer
    consume, deaf_until = tasks.consume, time.monotonic() + seconds
    tasks.consume = lambda: consume() if time.monotonic() > deaf_until else None
    _consumers[-1].hub.call_soon(tasks.cancel)


_consumers: list[Any] = []


@worker_ready.connect(weak=False)
def _on_ready(sender: Any, **_: Any) -> None:
    _consumers.append(sender)
