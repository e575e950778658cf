"""Keeps results small and steps visible: lists cut by bytes, and slow motion."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

Json = dict[str, Any]
Item = TypeVar("Item")


def fit(rows: Sequence[Json], budget_bytes: int) -> list[Json]:
    """Return the first rows whose JSON fits into the budget: the caller puts the best first."""
    kept: list[Json] = []
    for row in rows:
        budget_bytes -= len(json.dumps(row)) + 2
        if budget_bytes < 0:
            break
        kept.append(row)
    return kept


def paced(items: Sequence[Item], total_s: float) -> Iterator[Item]:
    """Yield the items over at least `total_s` seconds, so that people can watch; 0 is full speed."""
    began = time.monotonic()
    for number, item in enumerate(items, 1):
        yield item
        due = began + total_s * number / (len(items) + 1)
        time.sleep(max(0.0, due - time.monotonic()))
    time.sleep(max(0.0, began + total_s - time.monotonic()))
