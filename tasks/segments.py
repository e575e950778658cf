"""Which ready tasks travel in which canvas: a pure plan of chains, groups and chords.

Only the static, series-parallel part of a graph is planned; every other join is released by the
database and planned when it is ready. The plan never puts a group behind a group: Celery 5.7.0
runs the third of three adjacent groups several times (measured).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

#: Nodes in one linear run of a canvas: the bytes of a chain grow with the square of its length.
MAX_CHAIN = 10
#: Nodes that one message may carry behind its own: about 0.4 kB each, a message is to stay
#: under 16 kB.
MAX_CARRIED = 24
#: Width of a chord: its body is copied into every header message.
MAX_CHORD = 200


@dataclass(frozen=True, slots=True)
class Spot:
    """What the planner knows of one task."""

    number: int
    in_degree: int
    successors: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Chord:
    """Branches that all end in the same join; the body begins with that single task."""

    header: tuple[Segment, ...]
    body: Segment


@dataclass(frozen=True, slots=True)
class Segment:
    """A linear run of tasks, and what is forked off behind its last one."""

    run: tuple[int, ...]
    tail: tuple[Segment, ...] | Chord = field(default=())


#: What one `advance` sends: segments side by side, and chords over ready tasks.
Plan = tuple[Segment | Chord, ...]


@dataclass(frozen=True)
class Planner:
    """Plans canvases over one graph."""

    spots: Mapping[int, Spot]
    chords: bool = True
    """False: joins are the database's (no result backend)."""
    deliverable: Callable[[int], bool] = lambda number: True
    """Tasks that no Celery worker would take are left to the agents that poll for them."""

    def plan(self, ready: Sequence[int]) -> Plan:
        """Plan the ready tasks of one run, each delivered exactly once."""
        chords, rest = self._chords(ready) if self.chords else ([], list(ready))
        return (*chords, *(self._segment(number, MAX_CARRIED) for number in rest))

    def _chords(self, ready: Sequence[int]) -> tuple[list[Segment | Chord], list[int]]:
        """Split off the ready tasks whose branches make up a whole join."""
        branches = {number: self._linear(number) for number in ready}
        by_join: dict[int, list[int]] = {}
        for number, (_, join) in branches.items():
            if join is not None:
                by_join.setdefault(join, []).append(number)
        whole = {
            join: heads
            for join, heads in by_join.items()
            if len(heads) == self.spots[join].in_degree and len(heads) <= MAX_CHORD
        }
        taken = {number for heads in whole.values() for number in heads}
        chords: list[Segment | Chord] = [
            self._chord([branches[head][0] for head in heads], join, MAX_CARRIED)
            for join, heads in whole.items()
        ]
        return chords, [number for number in ready if number not in taken]

    def _chord(self, runs: Sequence[tuple[int, ...]], join: int, budget: int) -> Chord:
        # The body travels in every header message; a wide chord gets a body of one task.
        longest = max(len(run) for run in runs)
        room = 1 if len(runs) > MAX_CARRIED else max(budget - longest, 1)
        return Chord(tuple(Segment(run) for run in runs), self._segment(join, room))

    def _linear(self, number: int) -> tuple[tuple[int, ...], int | None]:
        """Follow single successors; return the run and the join it ends in, if it does."""
        run = [number]
        while len(run) <= MAX_CHAIN:
            successors = self.spots[run[-1]].successors
            if len(successors) != 1 or not self.deliverable(successors[0]):
                return tuple(run[:MAX_CHAIN]), None
            if self.spots[successors[0]].in_degree > 1:
                return tuple(run), successors[0]
            run.append(successors[0])
        return tuple(run[:MAX_CHAIN]), None

    def _segment(self, number: int, budget: int) -> Segment:
        """Plan one ready task and at most `budget` tasks in all."""
        run = [number]
        while len(run) < min(MAX_CHAIN, budget):
            successors = self.spots[run[-1]].successors
            if len(successors) != 1 or not self._private(successors[0]):
                break
            run.append(successors[0])
        return Segment(tuple(run), self._tail(run, budget - len(run)))

    def _tail(self, run: Sequence[int], budget: int) -> tuple[Segment, ...] | Chord:
        successors = self.spots[run[-1]].successors
        if len(successors) < 2 or len(run) >= MAX_CHAIN:
            return ()
        private = [number for number in successors if self._private(number)]
        if self.chords and len(private) == len(successors):
            chord = self._fork_join(private, budget)
            if chord:
                return chord
        if not private or len(private) > budget:
            return ()
        return tuple(self._segment(number, budget // len(private)) for number in private)

    def _fork_join(self, heads: Sequence[int], budget: int) -> Chord | None:
        branches = [self._linear(number) for number in heads]
        joins = {join for _, join in branches}
        join = joins.pop()
        size = sum(len(run) for run, _ in branches)
        if joins or join is None or self.spots[join].in_degree != len(heads) or size >= budget:
            return None
        return self._chord([run for run, _ in branches], join, budget - size)

    def _private(self, number: int) -> bool:
        """Tell whether a task has one predecessor only, and a Celery worker may take it."""
        return self.spots[number].in_degree == 1 and self.deliverable(number)
