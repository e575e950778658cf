"""When a schedule is due: cron expressions in a time zone, and intervals. Knows no clock."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from itertools import islice, takewhile
from zoneinfo import ZoneInfo, available_timezones

from cronsim import CronSim, CronSimError

from opscore.errors import InvalidError, Problem

CATCH_UPS = ("skip", "latest", "all")
#: A slot that is at most this late is in time, whatever the policy: the longest that a platform
#: whose beat is dead may take.
ON_TIME_S = 60
MAX_EVERY_S = 366 * 86400
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_INSTANT = timedelta(microseconds=1)
_MAX_CRON = 200
_NICKNAMES = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
_FIELDS = {
    "minute": "0-59",
    "hour": "0-23",
    "day-of-month": "1-31, L (the last) or LW (the last working day)",
    "month": "1-12 or JAN-DEC",
    "day-of-week": "0-7 or SUN-SAT, 5L (the last Friday) or 1#2 (the second Monday)",
}


@dataclass(frozen=True, slots=True)
class Turn:
    """What is to be done with a schedule that is due."""

    fire: datetime | None
    """The slot whose run is to start."""
    missed: tuple[datetime, datetime] | None
    """First and last of the slots that are given up."""
    next_at: datetime | None
    """The slot to look at next; it may be due already. None: there is none."""


@dataclass(frozen=True, slots=True)
class Recurrence:
    """The timetable of a schedule; made by `recurrence`, which checks it.

    A slot is a moment in UTC. The slots depend on nothing but the timetable: whoever asks, and
    from when on, finds the same ones.
    """

    cron: str | None
    every_s: int | None
    """Slots lie at the multiples of it since 1970-01-01T00:00:00Z; zones do not matter."""
    zone: str

    def after(self, moment: datetime) -> datetime | None:
        """Return the first slot later than `moment`; None when there is none in 50 years."""
        if self.every_s:
            step = timedelta(seconds=self.every_s)
            return EPOCH + ((moment - EPOCH) // step + 1) * step
        local = moment.astimezone(ZoneInfo(self.zone))
        slots = (slot.astimezone(UTC) for slot in CronSim(_five(self.cron or ""), local))
        # In an hour that comes twice, the library begins with the first of the two.
        return next((slot for slot in slots if slot > moment), None)

    def upcoming(self, moment: datetime, count: int) -> list[datetime]:
        """Return the next `count` slots later than `moment`."""
        return list(islice(self._later(moment), count))

    def between(self, start: datetime, end: datetime, limit: int) -> list[datetime]:
        """Return the slots from `start` on and before `end`, at most `limit` of them."""
        slots = takewhile(lambda slot: slot < end, self._later(start - _INSTANT))
        return list(islice(slots, limit))

    def newest(self, first: datetime, end: datetime) -> datetime:
        """Return the newest slot not later than `end`, given one that is: `first`."""
        if self.every_s:
            step = timedelta(seconds=self.every_s)
            return max(first, EPOCH + (end - EPOCH) // step * step)
        span = timedelta(minutes=2)
        # Backwards in growing strides: a year of minutes is not walked through.
        while end - span > first:
            found = list(takewhile(lambda slot: slot <= end, self._later(end - span)))
            if found:
                return found[-1]
            span *= 4
        return [first, *takewhile(lambda slot: slot <= end, self._later(first))][-1]

    def turn(self, next_at: datetime, now: datetime, catch_up: str, window_s: int) -> Turn:
        """Say what to do about the slot `next_at`, which is due, and those after it.

        A slot that is not more than ON_TIME_S late fires. Of older ones, `skip` gives up all,
        `latest` fires the newest if no younger slot fires anyway, `all` fires each in its
        turn; both give up what is more than `window_s` seconds late.
        """
        on_time = now - timedelta(seconds=ON_TIME_S)
        window = min(now - timedelta(seconds=window_s), on_time)
        oldest = window if catch_up == "all" else on_time
        if next_at >= oldest:
            return Turn(next_at, None, self.after(next_at))
        newest = self.newest(next_at, now)
        if catch_up == "latest" and window <= newest < on_time:
            return Turn(newest, self._missed(next_at, newest), self.after(newest))
        onward = self.after(oldest - _INSTANT)
        past = now + _INSTANT
        return Turn(None, self._missed(next_at, min(onward or past, past)), onward)

    def _missed(self, first: datetime, end: datetime) -> tuple[datetime, datetime] | None:
        return (first, self.newest(first, end - _INSTANT)) if first < end else None

    def _later(self, moment: datetime) -> Iterator[datetime]:
        slot = self.after(moment)
        while slot is not None:
            yield slot
            slot = self.after(slot)


def recurrence(cron: str | None, every_s: int | None, zone: str) -> Recurrence:
    """Return a timetable; raises InvalidError with every problem and its path."""
    problems = [*_cron_or_interval(cron, every_s), *_zone_problems(zone)]
    if problems:
        raise InvalidError("The schedule is not valid.", problems)
    return Recurrence(cron, every_s, zone)


def in_words(cron: str) -> str:
    """Return a valid cron expression as an English sentence."""
    return CronSim(_five(cron), EPOCH).explain()


def _cron_or_interval(cron: str | None, every_s: int | None) -> Iterator[Problem]:
    if (cron is None) == (every_s is None):
        yield Problem("give either `cron` or `every_s` (seconds), and not both", "cron")
    elif cron is not None:
        yield from (Problem(message, "cron") for message in _cron_problems(cron))
    elif every_s is not None and not 1 <= every_s <= MAX_EVERY_S:
        yield Problem(f"must be 1 to {MAX_EVERY_S} seconds, not {every_s}", "every_s")


def _cron_problems(cron: str) -> Iterator[str]:
    expression = _five(cron)
    if len(cron) > _MAX_CRON:
        yield f"is longer than {_MAX_CRON} characters"
    elif len(expression.split()) != 5:
        yield (
            f"`{cron}` must have five fields: minute, hour, day of month, month, day of week "
            f"(`0 9 * * 1-5` is 09:00 on working days), or be one of {', '.join(_NICKNAMES)}"
        )
    else:
        try:
            CronSim(expression, EPOCH)
        except CronSimError as error:
            field = str(error).removeprefix("Bad ")
            yield (
                f"the {field} of `{cron}` is not valid; it may be {_FIELDS.get(field, 'others')}, "
                "`*`, a range `a-b`, a step `*/n`, or a list with commas"
            )


def _zone_problems(zone: str) -> Iterator[Problem]:
    if zone not in _zones():
        close = difflib.get_close_matches(zone, _zones(), 3)
        hint = f"did you mean {', '.join(close)}?" if close else "take one as `Europe/Berlin`"
        yield Problem(f"there is no time zone `{zone}`; {hint}", "timezone")


@lru_cache(maxsize=1)
def _zones() -> frozenset[str]:
    return frozenset(available_timezones())


def _five(cron: str) -> str:
    return _NICKNAMES.get(cron.strip().lower(), cron)
