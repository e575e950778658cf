"""When a task with several needs runs, is skipped, or still waits: pure rules."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

Verdict = Literal["run", "skip", "wait"]


@dataclass(slots=True)
class Spot:
    """A task below one that ended: its counters, changed in place."""

    number: int
    join: str
    in_degree: int
    pending: int
    """Needs that have not ended."""
    failed: int
    """Needs that failed or were cancelled."""
    skipped: int
    successors: Sequence[int]
    is_sink: bool
    live: bool
    """It is still `pending`: its fate is open."""
    owes: bool = False
    """It was cancelled before its needs have ended, and tells the tasks below when they have."""

    @property
    def verdict(self) -> Verdict:
        """Judge by the counters."""
        succeeded = self.in_degree - self.pending - self.failed - self.skipped
        return verdict(
            self.join,
            pending=self.pending,
            succeeded=succeeded,
            failed=self.failed,
            skipped=self.skipped,
        )

    def hear(self, status: str) -> None:
        """Count one more need that has ended."""
        self.pending -= 1
        self.skipped += status == "skipped"
        self.failed += status in ("failed", "cancelled")


def verdict(join: str, *, pending: int, succeeded: int, failed: int, skipped: int) -> Verdict:
    """Judge one join by how many of its needs have not ended, succeeded, failed, were skipped.

    `all_success`: all completed. `none_failed`: all ended, none failed or cancelled.
    `all_done`: all ended, however. `any`: one completed, at once.
    A task is skipped when its rule cannot hold any more and all its needs have ended.
    """
    if join == "any" and succeeded:
        return "run"
    if pending:
        return "wait"
    holds = {
        "all_success": not failed and not skipped,
        "none_failed": not failed,
        "all_done": True,
        "any": not (failed or skipped),
    }
    return "run" if holds[join] else "skip"


@dataclass(slots=True)
class Spread:
    """What an end means for the tasks below it."""

    changed: list[Spot]
    skipped: list[Spot]
    undecided: list[Spot]
    """They may run now; `tasks.deciding` goes on with them."""


def spread(spots: Mapping[int, Spot], status: str, successors: Iterable[int]) -> Spread:
    """Tell every task below one that ended with `status`; skips go on downward.

    `spots` holds all tasks below. The order is that of the numbers, so each task is judged
    after all that could still skip it here.
    """
    told: list[tuple[int, str]] = [(number, status) for number in successors]
    heapq.heapify(told)
    changed: dict[int, Spot] = {}
    reached = Spread([], [], [])
    while told:
        number, how = heapq.heappop(told)
        spot = changed[number] = spots[number]
        spot.hear(how)
        if told and told[0][0] == number:
            continue
        told_now = spot.owes and not spot.pending
        if told_now or (spot.live and spot.verdict == "run"):
            reached.undecided.append(spot)
        elif spot.live and spot.verdict == "skip":
            spot.live = False
            reached.skipped.append(spot)
            for below in spot.successors:
                heapq.heappush(told, (below, "skipped"))
    reached.changed = list(changed.values())
    return reached
