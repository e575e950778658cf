"""Random graphs for the engine's tests: irregular ones, and ones full of forks and joins."""

from __future__ import annotations

from random import Random

from tasks.graph import Graph, Node


def random_graph(rng: Random, size: int, density: float = 0.15) -> Graph:
    """Return a graph where any task may need any earlier one."""
    nodes = []
    for place in range(size):
        earlier = range(max(0, place - 12), place)
        needs = tuple(f"t{other}" for other in earlier if rng.random() < density)
        nodes.append(_node(f"t{place}", needs))
    rng.shuffle(nodes)
    return Graph.of(nodes)


def series_parallel(rng: Random, blocks: int) -> Graph:
    """Return a graph made of linear runs, forks that meet again, and forks that do not."""
    nodes: list[Node] = []
    ends = [_add(nodes, ())]
    for _ in range(blocks):
        start = rng.choice(ends)
        match rng.randrange(4):
            case 0:
                ends.append(_run(nodes, start, rng.randint(1, 16)))
            case 1 | 2:
                branches = [_run(nodes, start, rng.randint(1, 4)) for _ in range(rng.randint(2, 8))]
                ends.append(_add(nodes, tuple(branches)))
            case _:
                ends += [_run(nodes, start, rng.randint(1, 3)) for _ in range(rng.randint(2, 30))]
    return Graph.of(nodes)


def chain(length: int) -> Graph:
    """Return a linear run of tasks."""
    nodes: list[Node] = []
    _run(nodes, None, length)
    return Graph.of(nodes)


def diamond(width: int) -> Graph:
    """Return one task, `width` beside each other, one that joins them."""
    nodes: list[Node] = []
    start = _add(nodes, ())
    branches = [_run(nodes, start, 1) for _ in range(width)]
    _add(nodes, tuple(branches))
    return Graph.of(nodes)


def _node(key: str, needs: tuple[str, ...]) -> Node:
    return Node(key=key, capability="work", needs=needs)


def _add(nodes: list[Node], needs: tuple[str, ...]) -> str:
    key = f"t{len(nodes)}"
    nodes.append(_node(key, needs))
    return key


def _run(nodes: list[Node], start: str | None, length: int) -> str:
    last = start
    for _ in range(length):
        last = _add(nodes, () if last is None else (last,))
    assert last is not None
    return last
