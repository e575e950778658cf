"""Settings that hold more than one word: lists, rates, what groups are given."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Rate:
    """So many in so many seconds."""

    count: int
    period_s: float


_PERIODS = {"s": 1.0, "min": 60.0, "h": 3600.0, "day": 86400.0}


def rate_of(text: str) -> Rate:
    """Read `6000/min`. Raises ValueError."""
    found = re.fullmatch(r"([1-9][0-9]{0,8})/(s|min|h|day)", text)
    if found is None:
        raise ValueError("a rate is expected, as 6000/min (s, min, h, day)")
    return Rate(int(found[1]), _PERIODS[found[2]])


def granted(text: str) -> dict[str, list[str]]:
    """Read `{"group": "word", "other": ["word", "word"]}`. Raises ValueError."""
    try:
        found = json.loads(text or "{}")
        lists = {
            name: [given] if isinstance(given, str) else given for name, given in found.items()
        }
        fits = all(isinstance(given, list) for given in lists.values())
        if fits and all(isinstance(word, str) for given in lists.values() for word in given):
            return lists
    except (ValueError, AttributeError, TypeError):
        pass
    raise ValueError('JSON is expected, as {"group": "word", "other": ["word"]}')


def listed(text: str) -> list[str]:
    """Return the words of a comma-separated setting."""
    return [word.strip() for word in text.split(",") if word.strip()]
