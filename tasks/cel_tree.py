"""The syntax tree of a CEL expression, read from the library's serialized form (protobuf)."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Const:
    """A literal."""

    at: int
    """Offset in the text, in characters; every node has it."""
    value: bool | int | float | str | bytes | None


@dataclass(frozen=True, slots=True)
class Ident:
    """A name: a variable of a comprehension, or one that the platform gives."""

    at: int
    name: str


@dataclass(frozen=True, slots=True)
class Select:
    """`operand.field`, or `has(operand.field)` when `is_test`."""

    at: int
    operand: Tree
    field: str
    is_test: bool


@dataclass(frozen=True, slots=True)
class Call:
    """A function or operator (`_+_`, `_[_]`, `@in`); a method's target is its first argument."""

    at: int
    function: str
    args: tuple[Tree, ...]


@dataclass(frozen=True, slots=True)
class Group:
    """A list, map or message literal; maps give keys and values in turn."""

    at: int
    items: tuple[Tree, ...]
    kind: str = "list"
    """list, map or message."""


@dataclass(frozen=True, slots=True)
class Loop:
    """What all, exists, map and filter become: a fold of `step` over `over`."""

    at: int
    over: Tree
    names: frozenset[str]
    """What the element (and its key) is called in `condition` and `step`."""
    total: str
    """What the fold's value is called in `condition`, `step` and `result`."""
    start: Tree
    condition: Tree
    step: Tree
    result: Tree


Tree = Const | Ident | Select | Call | Group | Loop
_Fields = dict[int, list[int | bytes]]

_VARINT, _FIXED64, _BYTES = 0, 1, 2

#: From a variable of the platform down through constant fields and indexes.
Path = tuple[str, tuple[str | int, ...]]


def path_of(tree: Tree, local: frozenset[str] = frozenset()) -> Path | None:
    """Return ("tasks", ("a", "result")) for `tasks.a.result` and `tasks["a"].result`.

    None for whatever must be computed, and for the variables of a loop (`local`).
    """
    if isinstance(tree, Ident):
        # A leading dot means the platform's variable, even inside a loop that hides it.
        return None if tree.name in local else (tree.name.lstrip("."), ())
    step = _step(tree)
    if step is None:
        return None
    operand, name = step
    above = path_of(operand, local)
    return above and (above[0], (*above[1], name))


def _step(tree: Tree) -> tuple[Tree, str | int] | None:
    if isinstance(tree, Select):
        return None if tree.is_test else (tree.operand, tree.field)
    if isinstance(tree, Call) and tree.function == "_[_]":
        operand, index = tree.args
        if isinstance(index, Const) and type(index.value) in {str, int}:
            return operand, index.value  # type: ignore[return-value]  # narrowed by type()
    return None


def walk(tree: Tree) -> Iterator[Tree]:
    """Yield every node of a tree, from the root down."""
    yield tree
    for child in children(tree):
        yield from walk(child)


def children(tree: Tree) -> tuple[Tree, ...]:
    """Return the nodes right below this one."""
    match tree:
        case Select():
            return (tree.operand,)
        case Call():
            return tree.args
        case Group():
            return tree.items
        case Loop():
            return (tree.over, tree.start, tree.condition, tree.step, tree.result)
        case Const() | Ident():
            return ()


def paths(tree: Tree, local: frozenset[str] = frozenset()) -> Iterator[tuple[Path, Tree]]:
    """Yield what the tree reads, each as far as it is constant: `tasks.a.result.x`, `tasks`."""
    path = path_of(tree, local) or _tested(tree, local)
    if path:
        yield path, tree
        return
    if isinstance(tree, Loop):
        yield from paths(tree.over, local)
        yield from paths(tree.start, local)
        local = local | tree.names | {tree.total}
        inner: tuple[Tree, ...] = (tree.condition, tree.step, tree.result)
    else:
        inner = children(tree)
    for child in inner:
        yield from paths(child, local)


def start(tree: Tree) -> int:
    """Return where the text of a reference begins, rather than its last dot or bracket."""
    while isinstance(tree, Select) or (isinstance(tree, Call) and tree.function == "_[_]"):
        tree = tree.operand if isinstance(tree, Select) else tree.args[0]
    return tree.at


def _tested(tree: Tree, local: frozenset[str]) -> Path | None:
    if not (isinstance(tree, Select) and tree.is_test):
        return None
    above = path_of(tree.operand, local)
    return above and (above[0], (*above[1], tree.field))


def written(steps: tuple[str | int, ...]) -> str:
    """Write a path as people do: `tasks["a-b"].result[0]`."""
    text = ""
    for step in steps:
        if isinstance(step, str) and re.fullmatch(r"[A-Za-z_]\w*", step, re.ASCII):
            text += f".{step}" if text else step
        else:
            text += f'["{step}"]' if isinstance(step, str) else f"[{step}]"
    return text


def decode(serialized: bytes) -> Tree:
    """Read a serialized cel.expr.CheckedExpr or ParsedExpr.

    Raises ValueError when the bytes are something else.
    """
    envelope = _fields(serialized)
    message = _fields(_bytes(envelope, 2))
    is_checked = _bytes(envelope, 1).endswith(b".CheckedExpr")
    root, source = (4, 5) if is_checked else (2, 3)
    places: dict[int, int] = {}
    for entry in _fields(_bytes(message, source)).get(4, []):
        pair = _fields(entry) if isinstance(entry, bytes) else {}
        places[_int(pair, 1)] = _int(pair, 2)
    return _Reader(places).expr(_bytes(message, root))


class _Reader:
    def __init__(self, places: Mapping[int, int]) -> None:
        self._places = places

    def expr(self, data: bytes) -> Tree:
        fields = _fields(data)
        at = self._places.get(_int(fields, 2), 0)
        kind = next((number for number in fields if number != 2), 0)
        body = _fields(_bytes(fields, kind))
        # The numbers are those of cel/expr/syntax.proto, here and below.
        if kind == 3:
            return Const(at, _literal(body))
        if kind == 4:
            return Ident(at, _text(body, 1))
        return self._inner(at, kind, body)

    def _inner(self, at: int, kind: int, body: _Fields) -> Tree:
        match kind:
            case 5:
                return Select(at, self._one(body, 1), _text(body, 2), bool(_int(body, 3)))
            case 6:
                return Call(at, _text(body, 2), self._many(body, 1) + self._many(body, 3))
            case 7:
                return Group(at, self._many(body, 1))
            case 8:
                # A message has a name (field 1); a map has none.
                return Group(at, self._entries(body), "message" if 1 in body else "map")
            case 9:
                return self._loop(at, body)
        raise ValueError(f"unknown kind of expression: {kind}")

    def _one(self, body: _Fields, number: int) -> Tree:
        return self.expr(_bytes(body, number))

    def _many(self, body: _Fields, number: int) -> tuple[Tree, ...]:
        return tuple(self.expr(item) for item in body.get(number, []) if isinstance(item, bytes))

    def _entries(self, body: _Fields) -> tuple[Tree, ...]:
        entries = [_fields(item) for item in body.get(2, []) if isinstance(item, bytes)]
        return tuple(
            self._one(entry, number) for entry in entries for number in (3, 4) if number in entry
        )

    def _loop(self, at: int, body: _Fields) -> Loop:
        return Loop(
            at,
            over=self._one(body, 2),
            names=frozenset({_text(body, 1), _text(body, 8)} - {""}),
            total=_text(body, 3),
            start=self._one(body, 4),
            condition=self._one(body, 5),
            step=self._one(body, 6),
            result=self._one(body, 7),
        )


def _literal(body: _Fields) -> bool | int | float | str | bytes | None:
    number, values = next(iter(body.items()))
    raw = values[-1]
    if isinstance(raw, int):
        if number == 2:
            return bool(raw)
        # 1 is null; 3 is signed: protobuf writes negative numbers as two's complement.
        signed = raw - (1 << 64) if number == 3 and raw >> 63 else raw
        return None if number == 1 else signed
    if number == 5:
        return float(struct.unpack("<d", raw)[0])
    return raw.decode() if number == 6 else raw


def _fields(data: bytes) -> _Fields:
    found: _Fields = {}
    for number, value in _wire(data):
        found.setdefault(number, []).append(value)
    return found


def _wire(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    place = 0
    while place < len(data):
        tag, place = _varint(data, place)
        if tag & 7 == _VARINT:
            value, place = _varint(data, place)
            yield tag >> 3, value
            continue
        if tag & 7 == _BYTES:
            length, place = _varint(data, place)
        elif tag & 7 == _FIXED64:
            length = 8
        else:
            raise ValueError(f"unknown wire type {tag & 7}")
        yield tag >> 3, data[place : place + length]
        place += length


def _varint(data: bytes, place: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[place]
        value |= (byte & 0x7F) << shift
        place += 1
        if byte < 0x80:
            return value, place
        shift += 7


def _bytes(fields: _Fields, number: int) -> bytes:
    value = fields.get(number, [b""])[-1]
    return value if isinstance(value, bytes) else b""


def _text(fields: _Fields, number: int) -> str:
    return _bytes(fields, number).decode()


def _int(fields: _Fields, number: int) -> int:
    value = fields.get(number, [0])[-1]
    return value if isinstance(value, int) else 0
