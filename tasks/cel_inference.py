"""What an expression gives, and what cannot be right in it, before there is any data.

CEL's own checker takes whatever a task gave as `dyn`. Where schemas say more, this follows
them through the syntax tree: a field that is not there, a comparison that never holds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from tasks.cel_tree import Call, Const, Group, Ident, Loop, Path, Select, Tree, path_of, written
from tasks.cel_types import (
    ANY,
    BOOL,
    DOUBLE,
    INT,
    STRING,
    Type,
    either,
    list_of,
    map_of,
    of_literal,
    scalar,
)
from tasks.cel_words import meant

#: What a variable of the platform is; None: it is judged elsewhere, and counts as anything.
Lookup = Callable[[Path], "tuple[Type, int] | None"]
Report = Callable[[str, Tree], None]
_Local = Mapping[str, Type]

_NUMBERS = ("int", "double", "uint")
_TIMES = ("timestamp", "duration")


def infer(tree: Tree, lookup: Lookup, report: Report) -> Type:
    """Return the type of an expression; `report` gets what cannot be right, with its node.

    `lookup` gives, for the path of a variable, the type of its beginning and how many steps of
    the path that beginning has.
    """
    return _Inference(lookup, report).of(tree, {})


class _Inference:
    def __init__(self, lookup: Lookup, report: Report) -> None:
        self._lookup = lookup
        self._report = report

    def of(self, tree: Tree, local: _Local) -> Type:
        path = path_of(tree, frozenset(local))
        if path:
            return self._path(path, tree)
        if isinstance(tree, Const):
            return _constant(tree)
        return local[tree.name] if isinstance(tree, Ident) else self._computed(tree, local)

    def _computed(self, tree: Select | Group | Loop | Call, local: _Local) -> Type:
        match tree:
            case Select():
                return self._select(tree, local)
            case Group():
                return self._group(tree, local)
            case Loop():
                return self._loop(tree, local)
            case Call():
                return self._call(tree, local)

    # -------------------------------------------------------- references
    def _path(self, path: Path, tree: Tree) -> Type:
        found = self._lookup(path)
        if found is None:
            return ANY
        type_, known = found
        root, steps = path
        for place in range(known, len(steps)):
            name = f"`{written((root, *steps[:place]))}`"
            type_ = self._step(type_, steps[place], name, tree)
        return type_

    def _step(self, of: Type, step: str | int, name: str, tree: Tree) -> Type:
        if isinstance(step, int):
            if not of.may_be("list", "map"):
                self._report(f"{name} is {of}, it has no [{step}]", tree)
            return of.element() if of.is_a("list") else ANY
        if not of.may_be("map"):
            self._report(f"{name} is {of}, it has no `{step}`", tree)
            return ANY
        found = of.select(step)
        if found is None:
            close = meant(step, of.fields or ())
            self._report(f"{name} has no `{step}`{close}", tree)
        return found or ANY

    def _select(self, tree: Select, local: _Local) -> Type:
        of = self.of(tree.operand, local)
        found = self._step(of, tree.field, _name(tree.operand), tree)
        return BOOL if tree.is_test else found

    # -------------------------------------------------------- literals
    def _group(self, tree: Group, local: _Local) -> Type:
        items = [self.of(item, local) for item in tree.items]
        if tree.kind == "list":
            return list_of(either(items))
        if tree.kind == "message":
            return ANY
        keys = [key.value if isinstance(key, Const) else None for key in tree.items[::2]]
        named = {key: item for key, item in zip(keys, items[1::2], strict=True) if key is not None}
        if len(named) < len(keys):
            return map_of(None)
        return map_of({str(key): item for key, item in named.items()})

    def _loop(self, loop: Loop, local: _Local) -> Type:
        over = self.of(loop.over, local)
        if not over.may_be("list", "map"):
            self._report(f"{_name(loop.over)} is {over}, not a list", loop)
        element = over.element() if len(loop.names) == 1 else ANY
        total = self.of(loop.start, local)
        names = {**local, **dict.fromkeys(loop.names, element), loop.total: total}
        self._condition(loop.condition, self.of(loop.condition, names))
        total = either([total, self.of(loop.step, names)])
        return self.of(loop.result, {**local, loop.total: total})

    # -------------------------------------------------------- calls
    def _call(self, call: Call, local: _Local) -> Type:
        args = [self.of(arg, local) for arg in call.args]
        if call.function in _LOGIC:
            conditions = call.args[:1] if call.function == "_?_:_" else call.args
            for tree, type_ in zip(conditions, args, strict=False):
                self._condition(tree, type_)
            return either(args[1:]) if call.function == "_?_:_" else BOOL
        if call.function in _BINARY and len(args) == 2:
            return self._binary(call, args)
        if call.function == "_[_]":
            return self._index(call, args)
        return self._function(call, args)

    def _condition(self, tree: Tree, type_: Type) -> None:
        if not type_.may_be("bool"):
            self._report(f"a condition must be true or false, this is {type_}", tree)

    def _binary(self, call: Call, args: Sequence[Type]) -> Type:
        one, other = args
        if not (one.is_known and other.is_known):
            return BOOL if call.function in _COMPARISONS else ANY
        results = [
            result
            for a in one.kinds or ()
            for b in other.kinds or ()
            if (result := _BINARY[call.function](a, b))
        ]
        if not results:
            self._report(_misfit(call.function.strip("_@"), one, other), call)
            return ANY
        self._texts(call, one, other)
        if call.function == "_+_" and results == ["list"]:
            return list_of(either([one.item or ANY, other.item or ANY]))
        return scalar(*results)

    def _texts(self, call: Call, one: Type, other: Type) -> None:
        """Report a comparison with a text that it cannot be."""
        if call.function == "@in":
            # Each of the words that are written out must be possible, of others one.
            other, is_each = other.element(), isinstance(call.args[1], Group)
        elif call.function in {"_==_", "_!=_"}:
            is_each = False
        else:
            return
        # Both may be null, and then they are equal.
        if one.values and other.values and not (one.may_be("null") and other.may_be("null")):
            never = other.values - one.values if is_each else _never(one.values, other.values)
            if never:
                self._report(_never_said(never, one.values | other.values), call)

    def _index(self, call: Call, args: Sequence[Type]) -> Type:
        of, by = args
        constant = call.args[1]
        if isinstance(constant, Const) and type(constant.value) in {str, int}:
            return self._step(of, constant.value, _name(call.args[0]), call)  # type: ignore[arg-type]  # narrowed by type()
        if of.is_a("list") and not by.may_be(*_NUMBERS):
            self._report(f"the elements of a list are numbered, they have no {by}", call)
        return of.element() if of.is_a("list") else ANY

    def _function(self, call: Call, args: Sequence[Type]) -> Type:
        takes, gives = _FUNCTIONS.get(call.function, ((), ANY))
        for tree, type_, kinds in zip(call.args, args, takes, strict=False):
            if not type_.may_be(*kinds):
                name = call.function.strip("_@-!") or call.function.strip("_")
                self._report(f"`{name}` cannot be applied to {type_}", tree)
        return gives


def _constant(tree: Const) -> Type:
    return scalar("bytes") if isinstance(tree.value, bytes) else of_literal(tree.value)


def _name(tree: Tree) -> str:
    path = path_of(tree)
    return f"`{written((path[0], *path[1]))}`" if path else "this"


def _never(one: frozenset[str], other: frozenset[str]) -> frozenset[str]:
    return frozenset() if one & other else min(one, other, key=len)


def _never_said(never: frozenset[str], both: frozenset[str]) -> str:
    known = sorted(both - never)
    words = ", ".join(f'"{value}"' for value in sorted(never)[:3])
    listed = ", ".join(f'"{value}"' for value in known[:10])
    return f"it is never {words}, but one of {listed}{meant(min(never), known)}"


def _misfit(operator: str, one: Type, other: Type) -> str:
    if operator in {"==", "!="}:
        return f"{one} is never equal to {other}"
    kinds = {*(one.kinds or ()), *(other.kinds or ())}
    hint = "; convert with double() or int()" if kinds == {"int", "double"} else ""
    words = f"a whole number and {one if other == INT else other}" if hint else f"{one} and {other}"
    return f"`{operator}` cannot be applied to {words}{hint}"


# ------------------------------------------------------------ rules: two kinds -> the result's
def _equal(one: str, other: str) -> str | None:
    return "bool" if _is_like(one, other) or "null" in {one, other} else None


def _ordered(one: str, other: str) -> str | None:
    return "bool" if _is_like(one, other) and one not in {"list", "map", "null"} else None


def _is_like(one: str, other: str) -> bool:
    return one == other or (one in _NUMBERS and other in _NUMBERS)


def _number(one: str, other: str) -> str | None:
    return one if one == other and one in _NUMBERS else None


def _whole(one: str, other: str) -> str | None:
    return one if one == other and one in {"int", "uint"} else None


def _plus(one: str, other: str) -> str | None:
    if {one, other} == {"timestamp", "duration"}:
        return "timestamp"
    if one == other and one in {"string", "bytes", "list", "duration"}:
        return one
    return _number(one, other)


def _minus(one: str, other: str) -> str | None:
    times = {
        ("timestamp", "timestamp"): "duration",
        ("timestamp", "duration"): "timestamp",
        ("duration", "duration"): "duration",
    }
    return times.get((one, other)) or _number(one, other)


def _in(one: str, other: str) -> str | None:
    return "bool" if other == "list" or (other == "map" and one == "string") else None


_COMPARISONS = ("_==_", "_!=_", "_<_", "_<=_", "_>_", "_>=_", "@in")
_BINARY: Mapping[str, Callable[[str, str], str | None]] = {
    "_==_": _equal,
    "_!=_": _equal,
    **dict.fromkeys(("_<_", "_<=_", "_>_", "_>=_"), _ordered),
    "_+_": _plus,
    "_-_": _minus,
    "_*_": _number,
    "_/_": _number,
    "_%_": _whole,
    "@in": _in,
}
_LOGIC = {"_&&_", "_||_", "!_", "_?_:_", "@not_strictly_false"}
_TEXT = ("string",)
_TAKES_TEXT = {
    **dict.fromkeys(("contains", "startsWith", "endsWith"), ((_TEXT, _TEXT), BOOL)),
    "matches": ((_TEXT, _TEXT), BOOL),
    **dict.fromkeys(("lowerAscii", "upperAscii", "trim", "reverse"), ((_TEXT,), STRING)),
    "replace": ((_TEXT, _TEXT, _TEXT), STRING),
    "substring": ((_TEXT,), STRING),
    "charAt": ((_TEXT,), STRING),
    "indexOf": ((_TEXT, _TEXT), INT),
    "lastIndexOf": ((_TEXT, _TEXT), INT),
    "split": ((_TEXT, _TEXT), list_of(STRING)),
}
_FUNCTIONS: Mapping[str, tuple[Sequence[Sequence[str]], Type]] = {
    **_TAKES_TEXT,
    "join": ((("list",),), STRING),
    "size": ((("string", "bytes", "list", "map"),), INT),
    "-_": (((*_NUMBERS, "duration"),), ANY),
    "int": (((*_NUMBERS, "string", "timestamp"),), INT),
    "double": (((*_NUMBERS, "string"),), DOUBLE),
    "string": (((*_NUMBERS, *_TIMES, "string", "bool", "bytes"),), STRING),
    "bool": ((("bool", "string"),), BOOL),
    "timestamp": ((("string", "timestamp", "int"),), scalar("timestamp")),
    "duration": ((("string", "duration", "int"),), scalar("duration")),
    "type": ((), ANY),
}
