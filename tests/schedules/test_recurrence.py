"""Cron and intervals: pure rules, in zones whose clocks are switched."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from opscore.errors import InvalidError
from workflows.recurrence import ON_TIME_S, Recurrence, in_words, recurrence

#: Both hemispheres, a switch at midnight, an odd offset, none at all.
ZONES = (
    "Europe/Berlin",
    "America/New_York",
    "America/Havana",
    "Australia/Sydney",
    "Asia/Kathmandu",
    "UTC",
)
CRONS = (
    "* * * * *",
    "*/7 * * * *",
    "30 * * * *",
    "30 2 * * *",
    "0,30 1-3 * * *",
    "*/20 2 * * *",
    "0 0 * * *",
    "15 0 1 * *",
    "0 9 * * 1-5",
    "0 0 29 2 *",
    "59 23 L * *",
    "@daily",
)
START = datetime(2019, 1, 1, tzinfo=UTC)
moments = st.floats(0, 12 * 365).map(lambda days: START + timedelta(days=days))
crons = st.builds(
    Recurrence, cron=st.sampled_from(CRONS), every_s=st.none(), zone=st.sampled_from(ZONES)
)
intervals = st.builds(
    Recurrence, cron=st.none(), every_s=st.integers(1, 10**7), zone=st.just("UTC")
)
SWITCH = datetime(2026, 10, 25, 1, 15, tzinfo=UTC)  # 02:15 in Berlin, for the second time


def local(zone: str, slots: list[datetime]) -> list[str]:
    return [slot.astimezone(ZoneInfo(zone)).strftime("%d %H:%M %Z") for slot in slots]


@given(timetable=st.one_of(crons, intervals), moment=moments)
@example(Recurrence("30 2 * * *", None, "Europe/Berlin"), SWITCH)
@example(Recurrence("*/20 2 * * *", None, "Europe/Berlin"), SWITCH)
def test_slots_are_strictly_increasing_and_later(timetable: Recurrence, moment: datetime) -> None:
    slots = [moment, *timetable.upcoming(moment, 8)]
    assert all(earlier < later for earlier, later in pairwise(slots))
    assert {slot.utcoffset() for slot in slots} == {timedelta(0)}


@given(
    timetable=st.one_of(crons, intervals),
    moment=moments,
    part=st.floats(0, 0.999),
)
@example(Recurrence("30 2 * * *", None, "Europe/Berlin"), SWITCH - timedelta(days=1), 0.99)
def test_slots_do_not_depend_on_when_one_asks(
    timetable: Recurrence, moment: datetime, part: float
) -> None:
    for earlier, later in pairwise(timetable.upcoming(moment, 5)):
        assert timetable.after(earlier + (later - earlier) * part) == later


@given(timetable=st.one_of(crons, intervals), moment=moments, days=st.floats(0.001, 40))
def test_ranges_that_touch_share_no_slot_and_miss_none(
    timetable: Recurrence, moment: datetime, days: float
) -> None:
    end = moment + timedelta(days=days)
    middle = moment + (end - moment) / 3
    whole = timetable.between(moment, end, 500)
    parts = timetable.between(moment, middle, 500) + timetable.between(middle, end, 500)
    assert parts[:500] == whole
    if whole and len(whole) < 500:
        assert timetable.newest(whole[0], end - timedelta(microseconds=1)) == whole[-1]


@given(
    timetable=st.one_of(crons, intervals),
    next_after=moments,
    gap_s=st.one_of(st.floats(0, 300), st.floats(0, 40 * 86400)),
    catch_up=st.sampled_from(["skip", "latest", "all"]),
    window_s=st.one_of(st.integers(0, 90), st.integers(0, 4 * 86400)),
)
def test_each_slot_of_a_gap_is_fired_or_given_up_as_the_policy_says(
    timetable: Recurrence, next_after: datetime, gap_s: float, catch_up: str, window_s: int
) -> None:
    first = timetable.after(next_after)
    assert first is not None
    now = first + timedelta(seconds=gap_s)
    due = timetable.between(first, now + timedelta(microseconds=1), 400)
    if len(due) == 400:
        now = due[-1]
    fired: list[datetime] = []
    given_up: list[datetime] = []
    next_at: datetime | None = first
    while next_at is not None and next_at <= now:
        turn = timetable.turn(next_at, now, catch_up, window_s)
        assert turn.next_at is None or turn.next_at > next_at
        if turn.missed:
            start, last = turn.missed
            given_up += timetable.between(start, last + timedelta(microseconds=1), 1000)
        if turn.fire:
            fired.append(turn.fire)
        next_at = turn.next_at

    in_time = [slot for slot in due if slot >= now - timedelta(seconds=ON_TIME_S)]
    in_window = [slot for slot in due if slot >= now - timedelta(seconds=window_s)]
    expected = {
        "skip": in_time,
        "latest": in_time or in_window[-1:],
        "all": max(in_time, in_window, key=len),
    }[catch_up]
    assert fired == expected
    assert sorted(fired + given_up) == due


def test_clock_that_jumps_forward_fires_a_time_that_does_not_exist_at_the_jump() -> None:
    night = datetime(2026, 3, 28, 12, tzinfo=UTC)
    daily = recurrence("30 2 * * *", None, "Europe/Berlin").upcoming(night, 2)
    assert local("Europe/Berlin", daily) == ["29 03:00 CEST", "30 02:30 CEST"]
    hourly = recurrence("30 * * * *", None, "Europe/Berlin")
    slots = hourly.upcoming(datetime(2026, 3, 29, 0, 0, tzinfo=UTC), 3)
    assert local("Europe/Berlin", slots) == ["29 01:30 CET", "29 03:30 CEST", "29 04:30 CEST"]
    thirds = recurrence("*/20 2 * * *", None, "Europe/Berlin").upcoming(night, 1)
    assert local("Europe/Berlin", thirds) == ["30 02:00 CEST"]


def test_clock_that_is_set_back_fires_a_time_of_day_once_and_every_hour_of_the_day() -> None:
    night = datetime(2026, 10, 24, 23, tzinfo=UTC)
    daily = recurrence("30 2 * * *", None, "Europe/Berlin")
    assert local("Europe/Berlin", daily.upcoming(night, 2)) == ["25 02:30 CEST", "26 02:30 CET"]
    # Asked before 02:30 comes for the second time.
    assert local("Europe/Berlin", daily.upcoming(SWITCH, 1)) == ["26 02:30 CET"]
    hourly = recurrence("30 * * * *", None, "Europe/Berlin")
    assert local("Europe/Berlin", hourly.upcoming(night, 4)) == [
        "25 01:30 CEST",
        "25 02:30 CEST",
        "25 02:30 CET",
        "25 03:30 CET",
    ]


def test_interval_counts_elapsed_time_whatever_the_clocks_do() -> None:
    slots = recurrence(None, 21600, "Europe/Berlin").upcoming(SWITCH, 3)
    assert [slot.hour for slot in slots] == [6, 12, 18]


@given(text=st.one_of(st.text(max_size=30), st.text("0123456789*/-,#L W?@", max_size=40)))
@example("0 9 * * 8")
@example("*/0 * * * *")
@example("0 0 * * 1#6")
@example("1" * 500)
def test_any_text_is_a_timetable_or_told_what_is_wrong(text: str) -> None:
    try:
        timetable = recurrence(text, None, "UTC")
    except InvalidError as error:
        problems = error.problems
    else:
        problems = ()
        assert in_words(text)
        timetable.after(SWITCH)
    assert {problem.path for problem in problems} <= {"cron"}


@given(zone=st.text(max_size=30))
@example("../etc/passwd")
@example("Europe")
def test_any_text_is_a_zone_or_told_what_is_wrong(zone: str) -> None:
    if zone not in ZONES:
        with pytest.raises(InvalidError, match="not valid") as caught:
            recurrence("* * * * *", None, zone)
        assert caught.value.problems[0].path == "timezone"


@pytest.mark.parametrize(
    ("cron", "every_s", "zone", "told"),
    [
        ("61 * * * *", None, "UTC", "0-59"),
        ("0 9 * *", None, "UTC", "five fields"),
        ("0 0 9 * * *", None, "UTC", "five fields"),
        ("0 9 * * MON-FRI#2", None, "UTC", "day-of-week"),
        (None, 0, "UTC", "must be 1 to"),
        (None, None, "UTC", "either"),
        ("@daily", 60, "UTC", "either"),
        ("@daily", None, "Europe/Berln", "Europe/Berlin"),
    ],
)
def test_error_says_what_to_do(cron: str | None, every_s: int | None, zone: str, told: str) -> None:
    with pytest.raises(InvalidError) as caught:
        recurrence(cron, every_s, zone)
    assert told in str(caught.value.problems[0])
