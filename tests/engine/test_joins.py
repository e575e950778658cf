"""The rules of joins and skips against a model that defines them by recursion."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.flow import JOINS
from tasks.joins import Spot, spread, verdict

ENDS = ("completed", "failed", "cancelled", "skipped")
BAD = {"failed", "cancelled"}


def holds(join: str, ends: list[str]) -> bool:
    """Say whether a task runs, once everything that it needs has ended so."""
    match join:
        case "all_success":
            return set(ends) <= {"completed"}
        case "none_failed":
            return not BAD & set(ends)
        case "any":
            return "completed" in ends or not ends
        case _:
            return True


@dataclass
class Web:
    """A random graph: who needs whom, by which rule, and how each ends if it runs."""

    needs: list[list[int]]
    joins: list[str]
    would: list[str]

    def fate(self, number: int) -> str:
        """Return how a task ends, whatever the order in which the others do."""
        if number not in self._known:
            ends = [self.fate(need) for need in self.needs[number]]
            runs = holds(self.joins[number], ends)
            self._known[number] = self.would[number] if runs else "skipped"
        return self._known[number]

    @cached_property
    def _known(self) -> dict[int, str]:
        return {}

    def spots(self) -> dict[int, Spot]:
        below = [
            [other for other, needs in enumerate(self.needs) if number in needs]
            for number in range(len(self.needs))
        ]
        return {
            number: Spot(
                number=number,
                join=self.joins[number],
                in_degree=len(needs),
                pending=len(needs),
                failed=0,
                skipped=0,
                successors=below[number],
                is_sink=not below[number],
                live=True,
            )
            for number, needs in enumerate(self.needs)
        }


@st.composite
def webs(draw: st.DrawFn) -> Web:
    size = draw(st.integers(1, 12))
    needs = [[] if not n else sorted(draw(st.sets(st.integers(0, n - 1)))) for n in range(size)]
    joins = draw(st.lists(st.sampled_from(JOINS), min_size=size, max_size=size))
    ends = st.sampled_from(("completed", "completed", "failed", "cancelled"))
    return Web(needs, joins, draw(st.lists(ends, min_size=size, max_size=size)))


@given(st.sampled_from(JOINS), st.lists(st.sampled_from((*ENDS, None)), max_size=6))
def test_verdict_is_what_the_definition_says(join: str, ends: list[str | None]) -> None:
    known = [end for end in ends if end]
    if join == "any" and "completed" in known:
        expected = "run"
    elif None in ends:
        expected = "wait"
    else:
        expected = "run" if holds(join, known) else "skip"
    counts = Counter(ends)
    told = verdict(
        join,
        pending=counts[None],
        succeeded=counts["completed"],
        failed=counts["failed"] + counts["cancelled"],
        skipped=counts["skipped"],
    )
    assert told == expected


@given(webs(), st.randoms(use_true_random=False))
def test_the_order_of_ends_does_not_matter(web: Web, rng: Random) -> None:
    spots = web.spots()
    running = [number for number, needs in enumerate(web.needs) if not needs]
    ended: dict[int, str] = {}
    started = set(running)
    while running:
        number = running.pop(rng.randrange(len(running)))
        spots[number].live = False
        ended[number] = web.would[number]
        reached = spread(spots, ended[number], spots[number].successors)
        ended |= {spot.number: "skipped" for spot in reached.skipped}
        fresh = [spot.number for spot in reached.undecided if spot.number not in started]
        started.update(fresh)
        running += fresh
        for spot in reached.undecided:
            spot.live = False  # it runs
    assert ended == {number: web.fate(number) for number in spots}
    assert all(spot.pending == 0 for spot in spots.values())


@given(webs(), st.sampled_from(sorted(BAD)))
def test_only_what_is_below_is_told(web: Web, status: str) -> None:
    spots = web.spots()
    below = {0}
    for number, needs in enumerate(web.needs):
        if below & set(needs):
            below.add(number)
    reached = spread(spots, status, spots[0].successors)
    told = [spot.number for spot in reached.changed]
    assert sorted(set(told)) == sorted(told)
    assert set(told) <= below - {0}
    assert {spot.number for spot in reached.skipped} <= set(told)


@pytest.mark.parametrize("status", ENDS)
def test_what_was_cancelled_early_is_told_at_the_last_end_only(status: str) -> None:
    spot = Spot(2, "all_success", 2, 2, 0, 0, [], is_sink=True, live=False, owes=True)
    assert spread({2: spot}, status, [2]).undecided == []
    reached = spread({2: spot}, status, [2])
    assert (reached.undecided, reached.skipped) == ([spot], [])
