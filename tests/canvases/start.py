"""Starts one of the test canvases and prints the run's id: python -m tests.canvases.start JSON."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any

import django


def main(order: dict[str, Any]) -> None:
    """Start the canvas that the order names, from a process that knows the tasks."""
    django.setup()
    from celery import chain, chord, group

    from tests.canvases.shop import add, kill, mark, shaky, total
    from workflows.canvases import run_canvas

    file, gate = order.get("file", ""), order.get("gate", "")
    canvases: dict[str, Callable[[], Any]] = {
        "nested": lambda: chain(
            add.s(1, 2),
            group(chain(add.s(n), add.s(n)) for n in range(5)),
            chord([total.s(), total.s()], total.s()),
            shaky.si(1),
        ),
        "gated": lambda: chain(
            mark.s(1, file),
            group(mark.s(file, gate), mark.s(file)),
            total.s(),
            mark.s(file),
        ),
        "wide": lambda: chord([add.s(n, 0) for n in range(200)], total.s()),
        "poison": lambda: chain(kill.s(), add.s(1)),
    }
    print(run_canvas(canvases[order["canvas"]](), name=order["canvas"]).id)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
