"""What a wrong definition costs: no more than its size, however much is wrong in it."""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest

from opscore.errors import InvalidError
from workflows.ancestry import cycles
from workflows.definition import parse


class Needs(tuple[str, ...]):
    """Counts how often needs are gone through."""

    looks = 0

    def __iter__(self) -> Iterator[str]:
        Needs.looks += 1
        return super().__iter__()


def test_many_cycles_cost_no_more_than_their_tasks() -> None:
    def looks(count: int) -> int:
        Needs.looks = 0
        pairs = [(f"a{n}", f"b{n}") for n in range(count)]
        needs = {key: Needs([other]) for a, b in pairs for key, other in ((a, b), (b, a))}
        assert len(list(cycles(needs))) == count
        return Needs.looks

    assert looks(200) <= 3 * looks(100)


@pytest.mark.parametrize(
    "slip",
    [
        lambda n: {"needs": [f"nobody{n}"]},
        lambda n: {"with": {"x": f"${{{{ tasks.nobody{n}.result }}}}"}},
        lambda n: {f"capabilty{n}": "c"},
        lambda n: {"extends": f"nobody{n}"},
    ],
    ids=["needs", "expression", "key", "template"],
)
def test_many_slips_cost_no_more_than_those_that_are_told(
    slip: Callable[[int], dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    compared: list[int] = []
    find = difflib.get_close_matches

    def counted(word: str, words: Sequence[str], *rest: Any) -> list[str]:
        compared.append(len(words))
        return find(word, words, *rest)

    monkeypatch.setattr(difflib, "get_close_matches", counted)

    def cost(count: int) -> tuple[int, int]:
        compared.clear()
        tasks = {f"task{n}": {"capability": "c", **slip(n)} for n in range(count)}
        with pytest.raises(InvalidError) as caught:
            parse(json.dumps({"name": "x", "tasks": tasks}), media_type="json")
        assert len(caught.value.problems) == 101
        return len(compared), sum(compared)

    calls, words = cost(300)
    assert calls <= 101
    assert cost(600) == (calls, words)
