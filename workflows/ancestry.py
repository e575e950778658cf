"""Which task comes before which: cycles, and the tasks upstream of each."""

from __future__ import annotations

import graphlib
from collections.abc import Iterator, Mapping, Sequence

Needs = Mapping[str, Sequence[str]]


def cycles(needs: Needs) -> Iterator[list[str]]:
    """Yield tasks that wait for each other, as [a, b, a]: a runs before b, and b before a.

    At least one cycle of every knot is named, and no task twice. Linear, however many there are.
    """
    left = {key: iter(above) for key, above in _inner(needs).items()}
    done: set[str] = set()
    for start in needs:
        # Each task behind the one that needs it; a dict, to be asked what is on the way.
        walk = {} if start in done else {start: None}
        while walk:
            need = next(left[next(reversed(walk))], None)
            if need is None:
                done.add(walk.popitem()[0])
            elif need in walk:
                found = list(_back_to(need, walk))
                done.update(found)
                yield [need, *found]
            elif need not in done:
                walk[need] = None


def _back_to(key: str, walk: dict[str, None]) -> Iterator[str]:
    """Take the end of a walk away, the last first, up to this key."""
    last = None
    while last != key:
        last = walk.popitem()[0]
        yield last


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
