"""Handlers of the agents that the tests with real workers start."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from agents.handlers import Context, HandlerError, handler
from opscore.celery import app


@handler("work")
def work(task: Context) -> dict[str, object]:
    """Note that it ran, wait for its gate where it has one, and say who did it."""
    if record := task.inputs.get("record"):
        with Path(str(record)).open("a") as file:
            file.write(f"{task.key} {task.attempt} {os.getpid()}\n")
    if gate := task.inputs.get("gate"):
        while not Path(str(gate)).exists():
            time.sleep(0.01)
    return {"key": task.key, "pid": os.getpid(), **task.inputs.get("say", {})}


@handler("flaky")
def flaky(task: Context) -> int:
    """Fail until the attempt that the inputs name."""
    if task.attempt < task.inputs["succeed_at"]:
        raise HandlerError(f"attempt {task.attempt} is too early", type="too_early")
    return task.attempt


@handler("poison")
def poison(task: Context) -> None:
    """Kill the process that runs it."""
    os.kill(os.getpid(), signal.SIGKILL)


@handler("forever")
def forever(task: Context) -> None:
    """Never end, and never look whether it should."""
    while True:
        time.sleep(3600)


@app.task(name="bench.step")
def step(mark: str = "") -> None:
    """Do nothing as a plain Celery task, which the benchmark compares with."""
    if mark:
        Path(mark).touch()


@handler("ask")
def ask(task: Context) -> str:
    """Call a service that is down while the file of that name exists; note each call."""
    with Path(str(task.inputs["calls"])).open("a") as file:
        file.write(f"{task.key}\n")
    if Path(str(task.inputs["down"])).exists():
        raise HandlerError("no answer", type="unavailable")
    return task.key
