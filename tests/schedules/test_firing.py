"""The tick: every slot exactly once, whoever ticks and whenever it dies."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from django.db import connection

from agents.models import Host
from agents.signals import fallback_tick
from opscore.config import ROOT
from tasks.control import cancel_run
from tasks.models import Run
from tests.schedules.conftest import DEFINITION, hour_at_rest, make_due, started
from workflows import registry, schedules
from workflows.definition import from_data
from workflows.firing import start_waiting, tick
from workflows.jobs import fire_schedules
from workflows.models import Schedule, Slot, Workflow
from workflows.slots import MAX_WAITING

if TYPE_CHECKING:
    from opscore.models import Project
    from tests.conftest import WaitUntil

Make = Callable[..., Schedule]
pytestmark = pytest.mark.django_db


def test_due_slot_starts_one_run_with_the_schedules_inputs(schedule: Make) -> None:
    often = schedule(inputs={"day": "monday"}, priority=7, fairness_key="ada")
    [at] = make_due(often, since_s=3600)
    often.next_at = at
    Schedule.objects.update(catch_up_window_s=7200)
    fire_schedules()
    fire_schedules()
    run = Run.objects.get()
    assert (run.workflow, run.inputs, run.priority) == ("report", {"day": "monday"}, 7)
    assert run.fairness_key == "ada"
    slot = Slot.objects.get()
    assert (slot.at, slot.outcome, slot.cause, slot.run_id) == (at, "started", "timetable", run.pk)
    often.refresh_from_db()
    assert (often.last_at, often.next_at) == (at, at + timedelta(seconds=3600))


def test_nothing_fires_before_its_time(schedule: Make) -> None:
    schedule()
    tick()
    assert not Slot.objects.exists()


def test_run_learns_its_slot_in_the_schedules_zone(schedule: Make) -> None:
    daily = schedule(cron="0 9 * * *", timezone="Asia/Kathmandu", inputs={}, slot_input="day")
    [at] = make_due(daily, since_s=86400)
    tick()
    told = Run.objects.get().inputs["day"]
    assert told == f"{at + timedelta(hours=5, minutes=45):%Y-%m-%dT09:00:00}+05:45"


def test_silent_beat_only_slows(schedule: Make) -> None:
    make_due(schedule(), since_s=3600)
    fallback_tick.send(sender=Host)
    assert Run.objects.count() == 1


@pytest.mark.django_db(transaction=True)
def test_each_slot_fires_once_with_eight_ticks_at_once(schedule: Make) -> None:
    due = {
        (made := schedule(f"s{number}", every_s=number + 1, catch_up="all")).pk: make_due(
            made, since_s=50
        )
        for number in range(8)
    }
    errors: list[BaseException] = []

    def beat() -> None:
        try:
            while Schedule.objects.filter(next_at__lt=_now()).exists():
                tick()
        except BaseException as error:
            errors.append(error)
            raise
        finally:
            connection.close()

    beats = [threading.Thread(target=beat) for _ in range(8)]
    for thread in beats:
        thread.start()
    for thread in beats:
        thread.join()
    assert errors == []
    for made in Schedule.objects.all():
        fired = started(made)
        # While they ticked, time went on: there may be a few more.
        assert fired[: len(due[made.pk])] == due[made.pk]
        step = timedelta(seconds=made.every_s or 0)
        assert fired == [fired[0] + step * place for place in range(len(fired))]
    assert not Slot.objects.exclude(outcome="started").exists()
    assert set(Slot.objects.values_list("run_id", flat=True)) == set(
        Run.objects.values_list("pk", flat=True)
    )
    assert Run.objects.count() == Slot.objects.count()


@pytest.mark.slow
@pytest.mark.django_db(transaction=True)
def test_tick_that_is_killed_leaves_every_slot_to_the_next(
    schedule: Make, wait_until: WaitUntil
) -> None:
    dense = schedule(every_s=1, catch_up="all")
    due = make_due(dense, since_s=300)
    code = "import django; django.setup(); from workflows.firing import start_waiting, tick; tick()"
    environment = {**os.environ, "DJANGO_SETTINGS_MODULE": "opscore.settings"}
    killed = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, env=environment)
    wait_until(lambda: len(started(dense)) > 10, 40)
    killed.send_signal(signal.SIGKILL)
    assert killed.wait() == -signal.SIGKILL
    assert len(started(dense)) < len(due)

    def caught_up() -> bool:
        tick()
        return set(due) <= set(started(dense))

    wait_until(caught_up, 60)
    assert Run.objects.count() == Slot.objects.count() == len(started(dense))


# ------------------------------------------------------------ catch-up
def test_latest_fires_one_of_a_gap_and_records_the_others_in_one_row(schedule: Make) -> None:
    due = make_due(hourly := schedule(catch_up="latest"), since_s=5.5 * 3600)
    tick()
    assert started(hourly) == due[-1:]
    missed = Slot.objects.get(outcome="skipped")
    assert (missed.at, missed.until, missed.run_id) == (due[0], due[-2], None)
    assert "missed" in missed.reason


def test_all_fires_each_in_the_window_oldest_first(schedule: Make) -> None:
    hourly = schedule(catch_up="all", catch_up_window_s=3 * 3600)
    due = make_due(hourly, since_s=5.5 * 3600)
    tick()
    assert started(hourly) == due[-3:]
    fired = Slot.objects.filter(outcome="started")
    assert list(fired.order_by("at")) == list(fired.order_by("run_id"))
    missed = Slot.objects.get(outcome="skipped")
    assert (missed.at, missed.until) == (due[0], due[-4])


def test_skip_fires_nothing_of_a_gap(schedule: Make) -> None:
    yearly = schedule(cron="0 0 1 1 *", catch_up="skip")
    due = make_due(yearly, since_s=3 * 366 * 86400)
    tick()
    assert not Run.objects.exists()
    assert Slot.objects.get().until == due[-1]
    yearly.refresh_from_db()
    assert yearly.next_at is not None
    assert yearly.next_at > due[-1]
    assert yearly.last_at == due[-1]


def test_backlog_of_one_does_not_keep_back_the_others(
    schedule: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_due(schedule("busy", every_s=1, catch_up="all"), since_s=600)
    make_due(late := schedule("late"), since_s=3600)
    monkeypatch.setattr("workflows.firing.BUDGET_S", 0.2)
    tick()
    assert len(started(late)) == 1


# ------------------------------------------------------------ overlap
def test_skip_leaves_out_slots_while_the_last_run_goes_on(schedule: Make) -> None:
    careful = schedule(overlap="skip", every_s=10, catch_up="all")
    first, second, *_ = make_due(careful, since_s=55)
    tick()
    assert started(careful) == [first]
    run = Run.objects.get()
    left_out = Slot.objects.get(at=second)
    assert (left_out.outcome, left_out.run_id) == ("skipped", None)
    assert str(run.pk) in left_out.reason
    cancel_run(run.pk)
    schedules.trigger(careful.project, careful.pk)
    assert Run.objects.count() == 2


def test_queue_starts_the_next_when_the_last_has_ended(schedule: Make) -> None:
    patient = schedule(overlap="queue", every_s=20, catch_up="all")
    due = make_due(patient, since_s=59.9)
    for number in range(1, len(due) + 1):
        tick()
        tick()
        assert started(patient) == due[:number]
        assert patient.slots.filter(outcome="pending").count() >= len(due) - number
        cancel_run(Run.objects.exclude(status="cancelled").get().pk)


def test_queue_is_bounded(schedule: Make) -> None:
    patient = schedule(overlap="queue", every_s=20)
    schedules.trigger(patient.project, patient.pk)
    [at, *_] = make_due(patient, since_s=30)
    Slot.objects.bulk_create(
        Slot(schedule=patient, at=at - timedelta(days=1, seconds=n), cause="timetable", reason="w")
        for n in range(MAX_WAITING)
    )
    tick()
    assert "slots wait already" in Slot.objects.get(at=at).reason
    assert Run.objects.count() == 1


def test_cancel_oldest_replaces_the_run_that_goes_on(schedule: Make) -> None:
    eager = schedule(overlap="cancel_oldest", every_s=10, catch_up="all")
    due = make_due(eager, since_s=55)
    tick()
    assert started(eager)[: len(due)] == due
    statuses = Run.objects.order_by("pk").values_list("status", flat=True)
    assert set(statuses[: len(due) - 1]) == {"cancelled"}
    assert Run.objects.exclude(status="cancelled").count() == 1


def test_runs_of_other_schedules_do_not_count(schedule: Make, project: Project) -> None:
    registry.execute(project, "report", inputs={})
    make_due(schedule("one", overlap="skip"), since_s=3600)
    make_due(schedule("two", overlap="skip"), since_s=3600)
    tick()
    assert Slot.objects.filter(outcome="started").count() == 2


# ------------------------------------------------------------ what cannot start
def test_missing_workflow_is_told_in_the_slot_and_blocks_nobody(
    schedule: Make, project: Project
) -> None:
    other = from_data({**DEFINITION, "name": "other"})
    registry.upload(project, other)
    make_due(gone := schedule("gone", workflow="other"), since_s=3600)
    make_due(fine := schedule("fine"), since_s=3600)
    Workflow.objects.get(name="other").delete()
    tick()
    assert len(started(fine)) == 1
    failed = gone.slots.get()
    assert (failed.outcome, failed.run_id) == ("failed", None)
    assert "There is no workflow other" in failed.reason
    gone.refresh_from_db()
    assert gone.next_at is not None
    assert gone.next_at > failed.at


def test_inputs_that_no_longer_fit_are_told_with_their_path(
    schedule: Make, project: Project
) -> None:
    make_due(often := schedule(), since_s=3600)
    strict = {"type": "object", "properties": {"day": {"type": "integer"}}, "required": ["day"]}
    registry.upload(project, from_data({**DEFINITION, "inputs": strict}))
    tick()
    assert "inputs.day" in often.slots.get().reason
    assert not Run.objects.exists()


def test_paused_schedule_fires_nothing_and_does_not_make_good_its_pause(schedule: Make) -> None:
    often = schedule(every_s=1, catch_up="all")
    schedules.pause(often.project, often.pk)
    tick()
    often.refresh_from_db()
    assert (often.next_at, Slot.objects.count()) == (None, 0)
    again = schedules.resume(often.project, "often")
    assert again.next_at is not None
    assert again.next_at > _now() - timedelta(seconds=2)


# ------------------------------------------------------------ backfill
def test_backfill_runs_each_slot_of_the_range_once(schedule: Make) -> None:
    hourly = schedule()
    end = _now()
    first = schedules.backfill(hourly.project, "often", end - timedelta(hours=10), end)
    assert (first.slots, first.created) == (10, 10)
    tick()
    again = schedules.backfill(hourly.project, "often", end - timedelta(hours=12), end)
    assert (again.slots, again.created) == (12, 2)
    tick()
    tick()
    assert len(started(hourly)) == Run.objects.count() == 12
    assert set(Slot.objects.values_list("cause", flat=True)) == {"backfill"}


def test_backfill_and_timetable_do_not_fire_the_same_slot(schedule: Make) -> None:
    hourly = schedule(catch_up="all")
    due = make_due(hourly, since_s=4 * 3600)
    schedules.backfill(hourly.project, "often", due[1], due[3])
    # One of the two has its run before the timetable comes there, the other still waits.
    start_waiting(hourly.pk)
    tick()
    made = schedules.backfill(hourly.project, "often", due[0], due[-1])
    assert made.created == 0
    assert started(hourly) == due
    assert Run.objects.count() == len(due)


def test_backfill_runs_what_was_missed_skipped_or_failed(schedule: Make) -> None:
    hourly = schedule(catch_up="skip", every_s=hour_at_rest())
    due = make_due(hourly, since_s=4 * 3600)
    tick()
    Slot.objects.create(
        schedule=hourly, at=due[1], cause="timetable", outcome="failed", reason="no workflow"
    )
    end = due[-1] + timedelta(seconds=1)
    assert schedules.backfill(hourly.project, "often", due[0], end).created == len(due)
    tick()
    assert started(hourly) == due
    assert not Slot.objects.exclude(until=None, reason="").exists()


def test_backfill_in_a_queue_runs_one_after_the_other(schedule: Make) -> None:
    hourly = schedule()
    end = _now()
    start = end - timedelta(hours=3)
    schedules.backfill(hourly.project, "often", start, end, overlap="queue")
    for number in range(1, 4):
        tick()
        assert len(started(hourly)) == number
        cancel_run(Run.objects.exclude(status="cancelled").get().pk)


@pytest.mark.django_db(transaction=True)
def test_backfills_at_once_with_ticks_start_each_slot_once(schedule: Make) -> None:
    hourly = schedule(catch_up="all")
    make_due(hourly, since_s=20 * 3600)
    end = _now()
    errors: list[BaseException] = []

    def work(action: Callable[[], Any]) -> None:
        try:
            action()
        except BaseException as error:
            errors.append(error)
            raise
        finally:
            connection.close()

    def fill() -> None:
        schedules.backfill(hourly.project, "often", end - timedelta(hours=30), end)

    threads = [threading.Thread(target=work, args=(do,)) for do in (fill, tick) * 4]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    # One tick may be at the end of its time before it is at the end of the slots.
    while hourly.slots.filter(outcome="pending").exists():
        tick()
    slots = started(hourly)
    assert len(slots) == len(set(slots)) == Run.objects.count() == 30


def _now() -> Any:
    from opscore.database import database_now

    return database_now()
