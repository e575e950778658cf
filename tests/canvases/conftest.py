"""Canvases inside the test's own process."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from agents.handlers import load
from tasks.models import Run
from tests.engine.conftest import Bench
from tests.engine.conftest import bench as bench
from workflows.canvases import run_canvas

Finish = Callable[[Any], Run]


@pytest.fixture
def finish(bench: Bench) -> Finish:
    """Run a canvas to its end, as the workers of its tasks would."""
    bench.handlers.update(load(["tests.canvases.shop"]))

    def finish(canvas: Any) -> Run:
        return bench.finish(run_canvas(canvas))

    return finish
