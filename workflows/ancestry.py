"""Which task comes before which: cycles, and the tasks upstream of each."""

from __future__ import annotations

import graphlib
from collections.abc import Iterator, Mapping, Sequence

Needs = Mapping[str, Sequence[str]]


def cycles(needs: Needs) -> Iterator[list[str]]:
    """Yield tasks that wait for each other, as [a, b, a]: a runs before b, and b before a.

    At least one cycle of every knot is named, and no task twice.
    """
    left = dict(needs)
    while True:
        try:
            graphlib.TopologicalSorter(_inner(left)).prepare()
        except graphlib.CycleError as error:
            found: list[str] = error.args[1]
            yield found
            left = {key: above for key, above in left.items() if key not in found}
        else:
            return


def _inner(needs: Needs) -> dict[str, list[str]]:
    return {key: [one for one in above if one in needs] for key, above in needs.items()}


class Upstream:
    """The tasks that have completed when a task starts. The graph must have no cycle.

    One bit for each task: 10,000 tasks need 12 MB at most, sets would need gigabytes.
    """

    def __init__(self, needs: Needs) -> None:
        self._place = {key: place for place, key in enumerate(needs)}
        self._above: dict[str, int] = {}
        self.order = tuple(graphlib.TopologicalSorter(_inner(needs)).static_order())
        """Every task after those that it needs."""
        for key in self.order:
            mask = 0
            for one in needs[key]:
                if one in self._above:
                    mask |= self._above[one] | 1 << self._place[one]
            self._above[key] = mask

    def has(self, key: str, other: str) -> bool:
        """Tell whether `other` is upstream of `key`."""
        return other in self._place and bool(self._above[key] >> self._place[other] & 1)
