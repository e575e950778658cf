"""Which agent a task is addressed to: pure strategies behind one protocol."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol
from uuid import UUID

#: Weights of labels that a task prefers; below zero it would rather avoid them.
MAX_LIKING = 100
#: Weights of agents, for the strategy `weighted`.
MAX_WEIGHT = 100


@dataclass(frozen=True)
class Wishes:
    """What a task asks of the agent that does it."""

    requires: frozenset[str] = frozenset()
    prefers: Mapping[str, int] = field(default_factory=dict)
    """Label -> how much it is wanted, -100 to 100."""
    key: str = ""
    """What the strategy `sticky` keeps together."""

    def liking(self, labels: frozenset[str]) -> int:
        """Return how well such an agent suits."""
        return sum(weight for label, weight in self.prefers.items() if label in labels)


@dataclass(frozen=True)
class Place:
    """An agent that lives, as a strategy sees it."""

    id: UUID
    name: str
    labels: frozenset[str] = frozenset()
    load: int = 0
    """Tasks that it runs, and those that were addressed to it and wait."""
    slots: int | None = 1
    """Tasks that it does at once; None: it never said."""
    paused: bool = False
    weight: int = 1
    turn: float = 0.0
    """How much it was given so far, each task counted as 1/weight."""
    median_s: float | None = None
    """How long it took for the latest tasks of the capability; None: it did none yet."""

    @property
    def share(self) -> float:
        """How much of it is taken; 1: all."""
        return self.load / (self.slots or 1)

    @property
    def is_free(self) -> bool:
        """Whether one more task would start at once."""
        return self.slots is None or self.load < self.slots

    def suits(self, wishes: Wishes) -> bool:
        """Tell whether the task may be given to it at all."""
        return not self.paused and wishes.requires <= self.labels

    def given(self, floor: float = 0.0) -> Place:
        """Return it as it is with one more task; `floor`: see `floor_of`."""
        turn = max(self.turn, floor) + 1 / self.weight
        return replace(self, load=self.load + 1, turn=turn)


class Strategy(Protocol):
    """Chooses one of several agents that all suit; `places` is never empty."""

    def __call__(self, wishes: Wishes, places: Sequence[Place]) -> Place:
        """Return the chosen one; the same arguments always give the same answer."""


def least_loaded(wishes: Wishes, places: Sequence[Place]) -> Place:
    """Take the one with the smallest share of its slots taken; of equals whose turn it is."""
    return min(places, key=lambda place: (place.share, place.turn, place.name))


def by_turn(wishes: Wishes, places: Sequence[Place]) -> Place:
    """Take the one that was given least so far: all in turn, each as often as its weight says."""
    floor = floor_of(places)
    return min(places, key=lambda place: (max(place.turn, floor), -place.weight, place.name))


def fastest(wishes: Wishes, places: Sequence[Place]) -> Place:
    """Take the one that would be done first; idle ones that nobody knows yet are tried."""
    known = [place.median_s for place in places if place.median_s is not None]
    usual_s = min(known, default=1.0)

    def done_in_s(place: Place) -> float:
        if place.median_s is None and not place.load:
            return -1.0
        rounds = place.load // (place.slots or 1) + 1
        return rounds * (usual_s if place.median_s is None else place.median_s)

    return min(places, key=lambda place: (done_in_s(place), place.share, place.turn, place.name))


def sticky(wishes: Wishes, places: Sequence[Place]) -> Place:
    """Take the same one for the same key; one that joins draws only its part of the keys."""

    def rank(place: Place) -> bytes:
        return hashlib.sha256(f"{wishes.key}/{place.id}".encode()).digest()

    return max(places, key=rank)


#: Name -> strategy. With `least_loaded` nothing is addressed: whoever is free first takes a task.
STRATEGIES: Mapping[str, Strategy] = {
    "least_loaded": least_loaded,
    "round_robin": by_turn,
    "fastest": fastest,
    "sticky": sticky,
    "weighted": by_turn,
}
DEFAULT = "least_loaded"


def choose(wishes: Wishes, places: Sequence[Place], strategy: str = DEFAULT) -> Place | None:
    """Return the agent that a task is addressed to; None: whoever is free first.

    A preference never holds a task up: it chooses among those that are free.
    """
    able = [place for place in places if place.suits(wishes)]
    if not able:
        return None
    if not wishes.prefers:
        return None if strategy == DEFAULT else STRATEGIES[strategy](wishes, able)
    free = [place for place in able if place.is_free]
    best = liked_most(wishes, free)
    # Where all that are free suit equally well, the pull does the same without any address.
    is_choice = len(best) < len(free) or strategy != DEFAULT
    return STRATEGIES[strategy](wishes, best) if best and is_choice else None


def bind(wishes: Wishes, places: Sequence[Place], strategy: str = DEFAULT) -> Place | None:
    """Return the agent that a sticky key is bound to from now on; None: there is none that may.

    Unlike `choose` it always chooses, also where all are busy.
    """
    able = [place for place in places if place.suits(wishes)]
    free = [place for place in able if place.is_free] or able
    best = liked_most(wishes, free)
    return STRATEGIES[strategy](wishes, best) if best else None


def liked_most(wishes: Wishes, places: Sequence[Place]) -> list[Place]:
    """Return those that have most of what the task prefers."""
    best = max((wishes.liking(place.labels) for place in places), default=0)
    return [place for place in places if wishes.liking(place.labels) == best]


def floor_of(places: Sequence[Place]) -> float:
    """Return the turn that nobody counts as behind: who was away has no claim to what it missed.

    Those that always take their turn are never more than one step apart.
    """
    return max((place.turn for place in places), default=0.0) - 1.0


def weight_of(weights: Mapping[str, int], name: str, labels: frozenset[str]) -> int:
    """Return an agent's weight: by its own name, else the largest of its labels, else 1."""
    if name in weights:
        return weights[name]
    return max((weights[label] for label in labels if label in weights), default=1)
