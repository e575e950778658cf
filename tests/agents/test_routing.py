"""The strategies by themselves: who is chosen, who never is, and in which shares."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agents.routing import (
    STRATEGIES,
    Place,
    Wishes,
    bind,
    choose,
    floor_of,
    liked_most,
    weight_of,
)

#: The time that an example takes is that of the machine, not of the strategies.
busy = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
LABELS = ["gpu", "eu", "big", "spot"]


def place(name: str, *labels: str, **fields: object) -> Place:
    number = sum(ord(letter) * 251**at for at, letter in enumerate(name))
    return replace(Place(UUID(int=number), name, frozenset(labels)), **fields)  # type: ignore[arg-type]


def shared_out(places: Sequence[Place], strategy: str, tasks: int) -> Counter[str]:
    """Give out so many tasks, each of which ends before the next one comes."""
    now = list(places)
    given_to: Counter[str] = Counter()
    for _ in range(tasks):
        chosen = choose(Wishes(), now, strategy)
        assert chosen is not None
        given_to[chosen.name] += 1
        now[now.index(chosen)] = replace(chosen.given(floor_of(now)), load=0)
    return given_to


# ------------------------------------------------------------ prefers
@pytest.mark.parametrize(
    ("prefers", "places", "expected"),
    [
        ({"gpu": 1}, [place("a"), place("b", "gpu")], "b"),
        # A soft wish holds nothing up: the one who is free.
        ({"gpu": 1}, [place("a"), place("b", "gpu", load=1)], None),
        ({"gpu": 1}, [place("a", "eu"), place("b", "gpu", load=1), place("c", "spot")], None),
        ({"gpu": 1}, [place("a", load=1), place("b", "gpu", load=1)], None),
        # Nobody has it: the pull does the same.
        ({"gpu": 1}, [place("a"), place("b")], None),
        ({"spot": -5}, [place("a", "spot"), place("b")], "b"),
        ({"spot": -5}, [place("a", "spot"), place("b", load=1)], None),
        ({"gpu": 2, "eu": 3}, [place("a", "gpu"), place("b", "eu"), place("c", "big")], "b"),
        ({"gpu": 2, "eu": 3}, [place("a", "gpu", "eu"), place("b", "eu")], "a"),
        # Of those that suit equally well the least loaded.
        (
            {"gpu": 1},
            [place("a", "gpu", load=1, slots=4), place("b", "gpu", slots=4), place("c")],
            "b",
        ),
        ({"gpu": 1}, [place("a", "gpu", load=9, slots=None), place("b")], "a"),
        ({"gpu": 1}, [place("a", "gpu", paused=True), place("b")], None),
    ],
)
def test_preference(prefers: dict[str, int], places: list[Place], expected: str | None) -> None:
    chosen = choose(Wishes(prefers=prefers), places)
    assert (chosen and chosen.name) == expected


def test_preference_goes_before_the_strategy_and_ties_are_the_strategys() -> None:
    places = [place("a", "gpu"), place("b", "gpu", turn=-0.5), place("c", turn=-0.9)]
    chosen = choose(Wishes(prefers={"gpu": 1}), places, "round_robin")
    assert chosen is not None
    assert chosen.name == "b"


# ------------------------------------------------------------ each strategy
def test_without_strategy_and_wishes_nobody_is_chosen() -> None:
    assert choose(Wishes(), [place("a"), place("b")]) is None


def test_least_loaded_takes_the_smallest_share_of_slots() -> None:
    places = [place("a", load=2, slots=3), place("b", load=3, slots=10), place("c", load=1)]
    assert STRATEGIES["least_loaded"](Wishes(), places).name == "b"


def test_round_robin_visits_all_in_turn() -> None:
    places = [place(name) for name in "abc"]
    assert set(shared_out(places, "round_robin", 9).values()) == {3}
    # Who comes back after a long time has no claim to what it missed.
    late = [*(replace(one, turn=100.0) for one in places), place("late")]
    assert shared_out(late, "round_robin", 8)["late"] <= 3


@busy
@given(st.lists(st.integers(1, 30), min_size=1, max_size=6))
def test_weighted_shares_follow_the_weights(weights: list[int]) -> None:
    places = [place(f"p{n}", weight=weight) for n, weight in enumerate(weights)]
    tasks = 5 * sum(weights)
    given_to = shared_out(places, "weighted", tasks)
    for one in places:
        assert abs(given_to[one.name] - tasks * one.weight / sum(weights)) <= len(places)


def test_fastest_counts_what_is_before_the_task_and_tries_the_unknown() -> None:
    quick, slow = place("quick", median_s=1.0), place("slow", median_s=5.0)

    def pick(*places: Place) -> str:
        return STRATEGIES["fastest"](Wishes(), places).name

    assert pick(quick, slow) == "quick"
    assert pick(replace(quick, load=4), slow) in {"quick", "slow"}
    assert pick(replace(quick, load=5), slow) == "slow"
    assert pick(replace(quick, load=5, slots=5), slow) == "quick"
    assert pick(quick, slow, place("new")) == "new"
    # One try is enough until it is known.
    assert pick(quick, slow, place("new", load=1)) == "quick"


@busy
@given(st.integers(2, 12), st.integers(0, 50))
def test_sticky_moves_only_the_keys_that_the_new_one_draws(agents: int, seed: int) -> None:
    places = [place(f"{seed}-{n}") for n in range(agents)]
    keys = [f"key {n}" for n in range(100)]

    def spread(among: Sequence[Place]) -> dict[str, str]:
        chosen = {key: choose(Wishes(key=key), among, "sticky") for key in keys}
        return {key: one.name for key, one in chosen.items() if one}

    before, after = spread(places[1:]), spread(places)
    moved = {key for key in keys if before[key] != after[key]}
    assert all(after[key] == places[0].name for key in moved)
    assert spread(list(reversed(places))) == after


# ------------------------------------------------------------ what holds for all
@busy
@given(
    st.lists(
        st.builds(
            lambda name, labels, load, slots, paused, turn, median_s: place(
                name,
                *labels,
                load=load,
                slots=slots,
                paused=paused,
                turn=turn,
                median_s=median_s,
            ),
            st.text("abcdef", min_size=1, max_size=6),
            st.sets(st.sampled_from(LABELS)),
            st.integers(0, 5),
            st.none() | st.integers(1, 4),
            st.booleans(),
            st.floats(0, 10),
            st.none() | st.floats(0, 100),
        ),
        max_size=6,
        unique_by=lambda one: one.name,
    ),
    st.sets(st.sampled_from(LABELS), max_size=2),
    st.dictionaries(st.sampled_from(LABELS), st.integers(-100, 100)),
    st.sampled_from(sorted(STRATEGIES)),
)
def test_nobody_is_chosen_who_may_not_have_the_task(
    places: list[Place], requires: set[str], prefers: dict[str, int], strategy: str
) -> None:
    wishes = Wishes(frozenset(requires), prefers, "key")
    able = [one for one in places if not one.paused and requires <= one.labels]
    chosen, bound = choose(wishes, places, strategy), bind(wishes, places, strategy)
    assert chosen is None or chosen in able
    assert (bound is None) == (not able)
    assert bound is None or bound in able
    if prefers and chosen:
        assert chosen.is_free
        assert chosen in liked_most(wishes, [one for one in able if one.is_free])
    if strategy != "least_loaded" and not prefers:
        assert (chosen is None) == (not able)


def test_weight_of_an_agent_is_its_own_else_its_best_labels() -> None:
    weights = {"a": 2, "gpu": 7, "eu": 9}
    assert weight_of(weights, "a", frozenset(["gpu"])) == 2
    assert weight_of(weights, "b", frozenset(["gpu", "eu"])) == 9
    assert weight_of(weights, "c", frozenset()) == 1
