"""An upper bound of what an expression costs, known before it is evaluated.

The library counts the iterations of one evaluation, but not what each of them builds:
`["aaaa"].map(x, x + x).map(x, x + x)…` doubles with every link, and comparing such values
holds the interpreter for minutes. So sizes are followed through the syntax tree first.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tasks.cel_tree import Call, Const, Group, Ident, Loop, Path, Select, Tree, path_of

#: About 12 ns and 4 bytes each: at most some 0.6 s and 200 MB for one evaluation.
MAX_COST = 50_000_000
#: Of the same units: a value of a million nodes, or a text of 32 MB.
MAX_RESULT = 8_000_000
#: The library ends an evaluation after this many iterations, over all its loops.
MAX_ITERATIONS = 10_000
_NODE = 8
_CHARS = 4
_COPY = 4


class TooCostlyError(ValueError):
    """This could take too long or grow too large."""


@dataclass(frozen=True, slots=True)
class Size:
    """How large a value can be at most, in units of cost."""

    whole: int
    count: int = 0
    """Its elements, if it is a list or map."""
    part: int = 0
    """The largest of them."""

    def inside(self) -> Size:
        """Return the size of any one element."""
        return Size(self.part, self.part // _NODE, self.part)

    def repeated(self, times: int) -> Size:
        """Return the size of a list of `times` of these."""
        return Size(times * self.whole, times * self.count, self.part)

    def __add__(self, other: Size) -> Size:
        return Size(self.whole + other.whole, self.count + other.count, max(self.part, other.part))

    def __or__(self, other: Size) -> Size:
        return Size(
            max(self.whole, other.whole),
            max(self.count, other.count),
            max(self.part, other.part),
        )


_SCALAR = Size(_NODE)
_NOTHING = Size(0)


def cost(tree: Tree, lookup: Callable[[Path], Any]) -> int:
    """Return what evaluating `tree` costs at most.

    `lookup` gives the data behind a path (None where there is none). Raises TooCostlyError
    above MAX_COST and MAX_RESULT, and ValueError when the data holds a NUL character, which
    the library cuts texts at.
    """
    meter = _Meter(lookup)
    result = meter.size(tree, 1, {}).whole
    if result > MAX_RESULT:
        raise TooCostlyError
    return meter.spent + result


class _Meter:
    def __init__(self, lookup: Callable[[Path], Any]) -> None:
        self._lookup = lookup
        self._known: dict[Path, Size] = {}
        self.spent = 0

    def size(self, tree: Tree, times: int, local: Mapping[str, Size]) -> Size:
        path = path_of(tree, frozenset(local))
        if path:
            return self._data(path)
        if isinstance(tree, Const):
            return _measure(tree.value)
        if isinstance(tree, Ident):
            return local[tree.name]
        return self._computed(tree, times, local)

    def _computed(
        self, tree: Select | Group | Loop | Call, times: int, local: Mapping[str, Size]
    ) -> Size:
        match tree:
            case Select():
                return self._select(tree, times, local)
            case Group():
                return self._group([self.size(item, times, local) for item in tree.items], times)
            case Loop():
                return self._loop(tree, times, local)
            case Call():
                return self._call(tree, times, local)

    def _select(self, tree: Select, times: int, local: Mapping[str, Size]) -> Size:
        if tree.is_test and path_of(tree.operand, frozenset(local)):
            return _SCALAR
        inside = self.size(tree.operand, times, local).inside()
        return _SCALAR if tree.is_test else inside

    def _pay(self, units: int) -> None:
        self.spent += units
        if self.spent > MAX_COST:
            raise TooCostlyError

    def _data(self, path: Path) -> Size:
        if path not in self._known:
            self._known[path] = _measure(self._lookup(path))
            self._pay(self._known[path].whole // _NODE)
        return self._known[path]

    def _group(self, items: Sequence[Size], times: int) -> Size:
        whole = _NODE + sum(item.whole for item in items)
        self._pay(times * _NODE * (1 + len(items)))
        return Size(whole, len(items), max((item.whole for item in items), default=0))

    def _loop(self, loop: Loop, times: int, local: Mapping[str, Size]) -> Size:
        over = self.size(loop.over, times, local)
        total = self.size(loop.start, times, local)
        # Costs grow at least in proportion, so of all lists that weigh `over.whole` the one
        # with few elements of the largest size and nothing else costs most.
        large = min(over.count, over.whole // max(over.part, 1) + 1)
        for count, element in ((large, over.inside()), (over.count - large, _NOTHING)):
            inner = min(times * count, MAX_ITERATIONS)
            names = {**local, **dict.fromkeys(loop.names, element), loop.total: _NOTHING}
            self._pay(inner * _NODE)
            self.size(loop.condition, inner, names)
            # Only macros make loops, and each adds the same kind of thing in every round.
            total += self.size(loop.step, inner, names).repeated(count)
        # The library copies the list that map and filter build for every element they add.
        self._pay(times * _COPY * total.count**2)
        return self.size(loop.result, times, {**local, loop.total: total})

    def _call(self, call: Call, times: int, local: Mapping[str, Size]) -> Size:
        args = [self.size(arg, times, local) for arg in call.args]
        rule = _RULES.get(call.function, _any_call)
        result, cost = rule(args)
        self._pay(times * (_NODE + cost))
        return result


def _measure(value: Any) -> Size:
    if isinstance(value, dict):
        weights = [_weigh(key) + _weigh(item) for key, item in value.items()]
    elif isinstance(value, list):
        weights = [_weigh(item) for item in value]
    else:
        return Size(_weigh(value))
    return Size(_NODE + sum(weights), len(weights), max(weights, default=0))


def _weigh(value: Any) -> int:
    """Add up a value's nodes and texts, without recursion."""
    total, stack = 0, [value]
    while stack:
        item = stack.pop()
        total += _NODE
        if isinstance(item, str):
            if "\0" in item:
                raise ValueError("a text with a NUL character cannot be computed with")
            total += len(item) // _CHARS
        elif isinstance(item, dict):
            stack += item.keys()
            stack += item.values()
        elif isinstance(item, list):
            stack += item
    return total


def _length(text: Size) -> int:
    return max(text.whole - _NODE + 1, 0) * _CHARS


_Rule = Callable[[Sequence[Size]], tuple[Size, int]]


def _any_call(args: Sequence[Size]) -> tuple[Size, int]:
    """Assume of a function that it at most doubles what it gets (quote does)."""
    whole = 2 * sum(arg.whole for arg in args) + 2 * _NODE
    return Size(whole, whole // _NODE, whole), whole


def _plus(args: Sequence[Size]) -> tuple[Size, int]:
    total = args[0] + args[1]
    return total, total.whole


def _choice(args: Sequence[Size]) -> tuple[Size, int]:
    return args[1] | args[2], 0


def _index(args: Sequence[Size]) -> tuple[Size, int]:
    return args[0].inside(), 0


def _contains(args: Sequence[Size]) -> tuple[Size, int]:
    """Price a search: to compare with an element is far cheaper than to build one."""
    haystack = args[1]
    return _SCALAR, haystack.count + haystack.whole // 32


def _read(args: Sequence[Size]) -> tuple[Size, int]:
    return _SCALAR, sum(arg.whole for arg in args)


def _matches(args: Sequence[Size]) -> tuple[Size, int]:
    """Price a pattern that is not constant too: it is compiled in every round."""
    return _SCALAR, 1_000 + sum(arg.whole for arg in args)


def _measured(_: Sequence[Size]) -> tuple[Size, int]:
    return _SCALAR, 0


def _split(args: Sequence[Size]) -> tuple[Size, int]:
    pieces = _length(args[0]) + 1
    whole = args[0].whole + _NODE * (pieces + 1)
    return Size(whole, pieces, args[0].whole), whole


def _join(args: Sequence[Size]) -> tuple[Size, int]:
    separator = args[1].whole if len(args) > 1 else 0
    whole = args[0].whole + args[0].count * separator
    return Size(whole), whole


def _replace(args: Sequence[Size]) -> tuple[Size, int]:
    whole = args[0].whole + (_length(args[0]) + 1) * (_length(args[2]) // _CHARS + 1)
    return Size(whole), whole


_RULES: dict[str, _Rule] = {
    "_+_": _plus,
    "_?_:_": _choice,
    "_[_]": _index,
    "@in": _contains,
    "_==_": _read,
    "_!=_": _read,
    "_<_": _read,
    "_<=_": _read,
    "_>_": _read,
    "_>=_": _read,
    "_&&_": _measured,
    "_||_": _measured,
    "!_": _measured,
    "@not_strictly_false": _measured,
    "size": _measured,
    "matches": _matches,
    "contains": _read,
    "startsWith": _read,
    "endsWith": _read,
    "split": _split,
    "join": _join,
    "replace": _replace,
}
