"""Old slots: which are deleted, and that none of them can run again."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pytest

from opscore.config import load_config
from opscore.database import database_now
from opscore.errors import InvalidError
from tasks.models import Run
from tests.schedules.conftest import hour_at_rest, make_due, started
from workflows import schedules
from workflows.firing import tick
from workflows.housekeeping import BATCH, forget_slots
from workflows.jobs import clean_up
from workflows.models import Schedule, Slot

Make = Callable[..., Schedule]
pytestmark = pytest.mark.django_db


def _age(days: float) -> None:
    Slot.objects.update(decided_at=database_now() - timedelta(days=days))


def test_old_slots_are_deleted_and_never_run_again(schedule: Make) -> None:
    hourly = schedule()
    end = database_now()
    schedules.backfill(hourly.project, "often", end - timedelta(hours=5), end)
    tick()
    slots = started(hourly)
    Run.objects.update(status="completed", completed_at=end)
    _age(89)
    tick()
    clean_up()
    assert started(hourly) == slots
    _age(91)
    clean_up()
    assert not Slot.objects.exists()
    with pytest.raises(InvalidError) as caught:
        schedules.backfill(hourly.project, "often", slots[-1], end)
    (problem,) = caught.value.problems
    assert problem.path == "from"
    assert f"later than {slots[-1]:%Y-%m-%dT%H:%M:%SZ}" in problem.message
    after = slots[-1] + timedelta(seconds=1)
    assert schedules.backfill(hourly.project, "often", after, end).created == 0
    tick()
    assert Run.objects.count() == len(slots)


def test_old_slots_that_had_no_run_may_still_get_one(schedule: Make) -> None:
    hourly = schedule(catch_up="skip", every_s=hour_at_rest())
    due = make_due(hourly, since_s=4 * 3600)
    tick()
    _age(91)
    clean_up()
    assert not Slot.objects.exists()
    end = due[-1] + timedelta(seconds=1)
    assert schedules.backfill(hourly.project, "often", due[0], end).created == len(due)


def test_old_slots_that_wait_or_whose_run_goes_on_stay(schedule: Make) -> None:
    hourly = schedule()
    end = database_now()
    schedules.backfill(hourly.project, "often", end - timedelta(hours=3), end, overlap="queue")
    tick()
    _age(400)
    clean_up()
    assert sorted(Slot.objects.values_list("outcome", flat=True)) == [
        "pending", "pending", "started",
    ]  # fmt: skip


@pytest.mark.parametrize("kind", ["retention_days", "retention_failed_days"])
def test_slots_are_kept_for_ever_where_runs_are(
    schedule: Make, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr(load_config(), kind, 0)
    make_due(schedule(catch_up="skip"), since_s=4 * 3600)
    tick()
    _age(4000)
    clean_up()
    assert Slot.objects.exists()


def test_slots_are_deleted_in_batches(schedule: Make) -> None:
    gone = {"cause": "manual", "outcome": "skipped", "at": database_now()}
    often = schedule()
    Slot.objects.bulk_create(Slot(schedule=often, **gone) for _ in range(BATCH + 1))
    _age(91)
    assert forget_slots()
    assert Slot.objects.count() == 1
    assert not forget_slots()
