"""CEL, the expression language: the one place that knows the library behind it."""

from __future__ import annotations

import base64
import math
import re
from collections.abc import Mapping
from copy import copy
from datetime import UTC, datetime, timedelta
from functools import cache, lru_cache
from itertools import takewhile
from typing import Any

from cel_expr_python import cel
from cel_expr_python.ext import ext_strings

from opscore.texts import is_storable
from tasks.cel_cost import MAX_COST, TooCostlyError, cost
from tasks.cel_tree import (
    Call,
    Group,
    Ident,
    Loop,
    Path,
    Select,
    Tree,
    decode,
    path_of,
    paths,
    walk,
    written,
)
from tasks.cel_words import Complaint, complaints, plain_words

#: What an expression may read.
ROOTS = (
    "inputs", "tasks", "run", "result", "item", "index", "iteration", "previous", "error",
    "secrets",
)  # fmt: skip
MAX_CHARS = 4_000
_SLICE = 250


#: Key -> the keys that are read below it; None: all.
_Reads = dict[str, "_Reads"] | None


class CompileError(ValueError):
    """The text is not a valid expression."""

    def __init__(self, complaints: list[Complaint], tree: Tree | None = None) -> None:
        super().__init__("; ".join(complaint.message for complaint in complaints))
        self.complaints = complaints
        self.tree = tree
        """The syntax tree, when only names or types are wrong."""


class EvaluationError(ValueError):
    """The expression has no value for this data; the message is for people."""


class Expression:
    """A compiled expression. Immutable; may be used by several threads at once."""

    def __init__(self, text: str, tree: Tree, program: Any = None) -> None:
        self.text = text
        self.tree = tree
        self._path = path_of(tree) if _is_plain(tree) else None
        # A reference is looked up without the library.
        self._program = program
        self._reads = None if self._path else _what_is_read(tree)
        self._sliced = None if self._path else _sliced(tree)

    def value(self, scope: Mapping[str, Any]) -> Any:
        """Return the value as JSON data; a plain reference gives the very object of `scope`.

        Raises EvaluationError: a missing key, a type that does not fit, too costly, not JSON.
        """
        if self._path:
            return follow(self._path, scope)
        data = _pruned(scope, self._reads)
        try:
            if self._sliced:
                return self._in_slices(self._sliced, data)
            return self._computed(data)[0]
        except TooCostlyError:
            raise EvaluationError("this could take too long or grow too large") from None

    def _computed(self, data: Mapping[str, Any]) -> tuple[Any, int]:
        try:
            spent = cost(self.tree, lambda path: _find(path, data))
            result = self._program.eval(data=data)
        except TooCostlyError:
            raise
        except (RuntimeError, ValueError, RecursionError) as error:
            raise EvaluationError(plain_words(str(error))) from None
        if result.type() == cel.Type.ERROR:
            raise EvaluationError(plain_words(str(result.value())))
        return _to_json(result.plain_value()), spent

    def _in_slices(self, path: Path, data: dict[str, Any]) -> Any:
        """Map or filter a long list piece by piece: the library's time grows with the square."""
        whole = _find(path, data)
        if not isinstance(whole, list) or len(whole) <= _SLICE:
            return self._computed(data)[0]
        result: list[Any] = []
        total = 0
        for start in range(0, len(whole), _SLICE):
            piece = _replaced(data, (path[0], *path[1]), whole[start : start + _SLICE])
            values, spent = self._computed(piece)
            total += spent
            if total > MAX_COST:
                raise TooCostlyError
            result += values
        return result


@lru_cache(maxsize=8192)
def compiled(text: str) -> Expression:
    """Return the expression, compiled once for this process; raises CompileError."""
    if len(text) > MAX_CHARS:
        raise CompileError([Complaint(f"longer than {MAX_CHARS} characters")])
    if not text.strip():
        raise CompileError([Complaint("is empty")])
    if not is_storable(text):
        raise CompileError([Complaint("has a NUL character or half of a surrogate pair")])
    reference = _reference(text)
    if reference:
        return Expression(text, reference)
    try:
        program = _environment().compile(text)
    except RuntimeError as error:
        raise CompileError(list(complaints(text, str(error))), _tree_of(text)) from None
    tree = decode(program.serialize())
    refused = [node for node in walk(tree) if isinstance(node, Call) and node.function == "format"]
    if refused:
        raise CompileError([Complaint("format() is not offered; join texts with +", refused[0].at)])
    return Expression(text, tree, program)


#: What the library would read as a reference too, and say nothing against.
_REFERENCE = re.compile(r"(?:inputs|tasks|result|item|previous)(?:\.[A-Za-z_]\w*){0,16}", re.ASCII)
_NO_FIELDS = {"in", "true", "false", "null"}


def _reference(text: str) -> Tree | None:
    """Read `tasks.scan.result.files`: most expressions are no more, and this is 20 times faster."""
    if not _REFERENCE.fullmatch(text):
        return None
    root, *fields = text.split(".")
    if not _NO_FIELDS.isdisjoint(fields):
        return None
    tree: Tree = Ident(0, root)
    at = len(root)
    for name in fields:
        tree = Select(at, tree, name, is_test=False)
        at += 1 + len(name)
    return tree


def follow(path: Path, scope: Mapping[str, Any]) -> Any:
    """Look a path up; raises EvaluationError that says how far it exists."""
    value: Any = scope
    steps = (path[0], *path[1])
    for place, step in enumerate(steps):
        if not _has(value, step):
            raise EvaluationError(_missing(written(steps[:place]), step, value))
        value = value[step]
    return value


def _has(value: Any, step: str | int) -> bool:
    if isinstance(value, list):
        return isinstance(step, int) and 0 <= step < len(value)
    return isinstance(value, dict) and step in value


def _missing(above: str, step: str | int, value: Any) -> str:
    if isinstance(value, dict):
        return f"`{above}` has no `{step}`" if above else f"there is no `{step}` here"
    if isinstance(value, list) and isinstance(step, int):
        return f"`{above}` has {len(value)} elements, there is no [{step}]"
    kinds = {str: "text", bool: "a boolean", type(None): "null", list: "a list"}
    kind = kinds.get(type(value), "a number")
    return f"`{above}` is {kind}, it has no `{step}`"


def _find(path: Path, scope: Mapping[str, Any]) -> Any:
    try:
        return follow(path, scope)
    except EvaluationError:
        return None


def _replaced(data: Any, steps: tuple[str | int, ...], value: Any) -> Any:
    """Return a copy of `data`, shared where possible, with `value` at the end of `steps`."""
    if not steps:
        return value
    copied = copy(data)
    copied[steps[0]] = _replaced(data[steps[0]], steps[1:], value)
    return copied


def _sliced(tree: Tree) -> Path | None:
    """Return the list that the tree only maps and filters, and reads nowhere else."""
    over = tree
    while isinstance(over, Loop) and isinstance(over.start, Group):
        over = over.over
    path = path_of(over)
    if over is tree or path is None:
        return None
    mentions = [other for other, _ in paths(tree) if _overlap(path, other)]
    return path if len(mentions) == 1 else None


def _overlap(one: Path, other: Path) -> bool:
    return one[0] == other[0] and all(a == b for a, b in zip(one[1], other[1], strict=False))


def _is_plain(tree: Tree) -> bool:
    path = path_of(tree)
    return path is not None and path[0] in ROOTS


def _what_is_read(tree: Tree) -> _Reads:
    """Return the keys that the tree reads, as a tree of keys: {"tasks": {"a": {"result": None}}}."""
    found: dict[str, _Reads] = {}
    for (root, steps), _ in paths(tree):
        if root in ROOTS:
            keys = [root, *takewhile(lambda step: isinstance(step, str), steps)]
            _remember(found, [str(key) for key in keys])
    return found


def _remember(found: dict[str, _Reads], keys: list[str]) -> None:
    for key in keys[:-1]:
        inner = found.setdefault(key, {})
        if inner is None:
            return
        found = inner
    found[keys[-1]] = None


def _pruned(value: Any, reads: _Reads) -> Any:
    """Keep what is read: the library copies all it gets, and refuses all for one odd number."""
    if reads is None or not isinstance(value, Mapping):
        return value
    return {key: _pruned(value[key], below) for key, below in reads.items() if key in value}


@cache
def _environment() -> cel.Env:
    kind = cel.Type
    named = kind.Map(kind.STRING, kind.DYN)
    return cel.NewEnv(
        variables={
            "inputs": named,
            "tasks": kind.Map(kind.STRING, named),
            "secrets": kind.Map(kind.STRING, kind.STRING),
            "run": kind.Map(kind.STRING, kind.STRING),
            "result": kind.DYN,
            "item": kind.DYN,
            "index": kind.INT,
            "iteration": kind.INT,
            "previous": kind.DYN,
            "error": named,
        },
        extensions=[ext_strings.ExtStrings()],
    )


def _tree_of(text: str) -> Tree | None:
    try:
        return decode(_environment().compile(text, disable_check=True).serialize())
    except RuntimeError:
        return None


def _to_json(value: Any) -> Any:
    """Turn what the library gives into JSON data; raises EvaluationError."""
    if isinstance(value, dict):
        return {_key(key): _to_json(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_to_json(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        raise EvaluationError("the number is infinite or undefined")
    if value is None or isinstance(value, int | float):
        return value
    return _text(value)


def _key(key: Any) -> str:
    if not isinstance(key, str):
        raise EvaluationError(f"the keys of a map must be texts, not {key!r}: write string(…)")
    return key


def _text(value: Any) -> str:
    match value:
        case str():
            if "\0" in value:
                raise EvaluationError("the text has a NUL character")
            return value
        case datetime():
            return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
        case timedelta():
            return f"{value.total_seconds():.9f}".rstrip("0").rstrip(".") + "s"
        case bytes() | bytearray():
            return base64.b64encode(value).decode()
        case cel.Type():
            return str(value.name()).lower()
    raise EvaluationError("the value cannot be written as JSON")
