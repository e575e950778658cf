"""The detector of what may not exist: finds nothing in a healthy engine, everything in a broken one."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from opscore.ids import uuid7
from opscore.models import Event
from tasks.models import Run, Task
from tasks.stuck import find_stuck
from tests.engine.conftest import Bench
from tests.engine.flows import begin, node

pytestmark = pytest.mark.django_db(transaction=True)


def test_healthy_runs_are_not_stuck(bench: Bench) -> None:
    begin(bench, node("a"), node("b", "a"), node("s", uses="signal"))
    bench.finish(begin(bench, node("a")))
    Run.objects.update(created_at=timezone.now() - timedelta(hours=1))
    assert find_stuck() == []


@pytest.mark.parametrize(
    ("broken", "why"),
    [
        ({"status": "completed", "completed_at": timezone.now() - timedelta(hours=1)}, "live task"),
        ({"status": "running", "session_id": uuid7()}, "in no session"),
        ({"status": "pending", "ready_at": timezone.now() - timedelta(hours=1)}, "not decided"),
        ({"status": "retrying", "wake_at": timezone.now() - timedelta(hours=1)}, "does not go on"),
    ],
)
def test_what_nobody_works_on_is_found_and_noted_once(
    bench: Bench, broken: dict[str, Any], why: str
) -> None:
    run = begin(bench, node("a"))
    Run.objects.update(created_at=timezone.now() - timedelta(hours=1))
    Task.objects.update(**broken)
    for _ in range(2):
        [found] = find_stuck()
        assert (found["id"], why in found["why"]) == (run.id, True)
    assert Event.objects.filter(kind="run.stuck", run_id=run.id).count() == 1
