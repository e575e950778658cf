"""Handlers of five capabilities that do the same: nothing, for some milliseconds."""

from __future__ import annotations

import time
from pathlib import Path

from agents.handlers import Context, handler

CAPABILITIES = tuple(f"part-{number}" for number in range(1, 6))


def wait(task: Context) -> None:
    """Take the milliseconds that the inputs say."""
    time.sleep(task.inputs["ms"] / 1000)


for _name in CAPABILITIES:
    handler(_name)(wait)


@handler("work")
def work(task: Context) -> dict[str, float]:
    """Take so long; say when it began."""
    began = time.time()
    time.sleep(task.inputs.get("ms", 0) / 1000)
    if log := task.inputs.get("log"):
        with Path(log).open("a") as file:
            file.write(f"{time.time()}\n")
    return {"began": began}
