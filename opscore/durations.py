"""Durations as people write them."""

from __future__ import annotations

import re
from typing import Any

#: A year: longer is a slip of the pen.
MAX_S = 366 * 24 * 3600.0
_UNITS_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_PART = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,9})?)(ms|s|m|h|d)", re.ASCII)
_WHOLE = re.compile(f"(?:{_PART.pattern})+", re.ASCII)


def parse_duration(value: Any) -> float:
    """Return the seconds of `90s`, `1h30m`, `500ms` or a number of seconds.

    Raises ValueError with a message for people; above zero, at most 366 days.
    """
    seconds = _seconds(value)
    if seconds is None:
        raise ValueError(f"{value!r} is not a duration; write it as 90s, 2m, 1h30m or 500ms")
    if not 0 < seconds <= MAX_S:
        raise ValueError(f"{value!r} is not above zero and at most 366 days")
    return seconds


def _seconds(value: Any) -> float | None:
    if isinstance(value, int | float) and not isinstance(value, bool):
        # An int too large for a float would raise an OverflowError.
        return float(value) if abs(value) <= MAX_S else MAX_S * 2
    if not isinstance(value, str) or not _WHOLE.fullmatch(value):
        return None
    return round(sum(float(number) * _UNITS_S[unit] for number, unit in _PART.findall(value)), 3)
