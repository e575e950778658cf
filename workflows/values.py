"""What the values of a definition may be: each reader returns what is kept, or says what is wrong."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from agents.routing import MAX_LIKING
from opscore.documents import kind_of
from opscore.durations import parse_duration
from tasks.expressions import meant
from tasks.placeholders import bare
from tasks.retries import JITTERS

MAX_ITEMS = 10_000
MAX_FACTOR = 100.0
#: Labels that a task may prefer.
MAX_LIKINGS = 20
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")
KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,99}")
VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]{0,39}")
WORD = re.compile(r"[^\s\x00-\x1f\x7f]{1,80}")
RESOURCE = re.compile(r"[^\s/\x00-\x1f\x7f]{1,80}")
ERROR_TYPE = re.compile(r"[^\s*\x00-\x1f\x7f]{0,79}(?:[^\s*\x00-\x1f\x7f]|\*)")
#: Resources that one task may name.
MAX_RESOURCES = 4
USES = ("agent", "wait", "signal", "approval")
WORKFLOW = "workflow:"
_TIME = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d{1,9})?([Zz]|[+-]\d\d:\d\d)", re.ASCII)

Read = Callable[[Any], Any]


class MisfitError(ValueError):
    """A value is not what its key may hold."""

    def __init__(self, message: str, place: str = "") -> None:
        super().__init__(message)
        self.place = place
        """Where below the key, as `[0]`."""


# ------------------------------------------------------------ plain values
def text(value: Any) -> str:
    """Read a text."""
    if not isinstance(value, str):
        raise MisfitError(f"must be text, not {kind_of(value)}")
    return value


def name(value: Any) -> str:
    """Read the name of a workflow."""
    if not NAME.fullmatch(text(value)):
        raise MisfitError("a name has letters, digits, `_`, `-` and `.`, at most 100 of them")
    try:
        UUID(value)
    except ValueError:
        return str(value)
    raise MisfitError("a name must not look like an id")


def version(value: Any) -> str:
    """Read the author's word for a version; numbers are words too."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        value = str(value)
    if not VERSION.fullmatch(text(value)):
        raise MisfitError(
            "a version has letters, digits, `.`, `_`, `+` and `-`, at most 40 of them"
        )
    return str(value)


def mapping(value: Any) -> dict[str, Any]:
    """Read a map of whatever."""
    if not isinstance(value, dict):
        raise MisfitError(f"must be a map, not {kind_of(value)}")
    return value


def anything(value: Any) -> Any:
    """Read any value."""
    return value


def word(value: Any) -> str:
    """Read one word."""
    if not WORD.fullmatch(text(value)):
        raise MisfitError("must be one word of at most 80 characters")
    return str(value)


def texts(value: Any) -> tuple[str, ...]:
    """Read a list of texts; one text is a list of one."""
    items = value if isinstance(value, list) else [value]
    for place, item in enumerate(items):
        if not isinstance(item, str):
            where = f"[{place}]" if isinstance(value, list) else ""
            raise MisfitError(f"must be text, not {kind_of(item)}", where)
    return tuple(items)


def words(value: Any) -> tuple[str, ...]:
    """Read a set of words."""
    return _each(value, WORD, "must be one word of at most 80 characters")


def likings(value: Any) -> dict[str, int]:
    """Read labels with their weights; in a list each label counts 1."""
    if not isinstance(value, dict):
        return dict.fromkeys(words(value), 1)
    if len(value) > MAX_LIKINGS:
        raise MisfitError(f"at most {MAX_LIKINGS} labels are allowed")
    for label, weight in value.items():
        if not WORD.fullmatch(label):
            raise MisfitError("a label is one word of at most 80 characters", f".{label}")
        if type(weight) is not int or abs(weight) > MAX_LIKING:
            rule = f"a weight is a whole number from -{MAX_LIKING} to {MAX_LIKING}"
            raise MisfitError(rule, f".{label}")
    return value


def key_template(value: Any) -> str:
    """Read a text that becomes a key."""
    if not text(value).strip():
        raise MisfitError("must not be empty")
    return str(value)


def resources(value: Any) -> tuple[str, ...]:
    """Read the names of what a task uses outside."""
    found = _each(value, RESOURCE, "a resource is one word of at most 80 characters, without `/`")
    if not 1 <= len(found) <= MAX_RESOURCES:
        raise MisfitError(f"names 1 to {MAX_RESOURCES} resources")
    return found


def error_types(value: Any) -> tuple[str, ...]:
    """Read types of errors: a word, or the beginning of some with `*`."""
    return _each(value, ERROR_TYPE, "an error type is one word, with `*` only at its end")


def _each(value: Any, pattern: re.Pattern[str], rule: str) -> tuple[str, ...]:
    items = texts(value)
    for place, item in enumerate(items):
        if not pattern.fullmatch(item):
            raise MisfitError(rule, f"[{place}]" if isinstance(value, list) else "")
    return tuple(dict.fromkeys(items))


def whole(low: int, high: int) -> Callable[[Any], int]:
    """Return a reader of whole numbers."""

    def read(value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise MisfitError(f"must be a whole number from {low} to {high}")
        return value

    return read


def one_of(options: Sequence[str]) -> Callable[[Any], str]:
    """Return a reader of one of some words."""

    def read(value: Any) -> str:
        if text(value) not in options:
            raise MisfitError(f"must be {', '.join(options[:-1])} or {options[-1]}")
        return str(value)

    return read


def number(low: float, high: float) -> Callable[[Any], float]:
    """Return a reader of numbers."""

    def read(value: Any) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise MisfitError(f"must be a number, not {kind_of(value)}")
        if not low <= value <= high:
            raise MisfitError(f"must be from {low:g} to {high:g}")
        return float(value)

    return read


def jitter(value: Any) -> str | float:
    """Read the part of a delay that chance decides."""
    if isinstance(value, str) and value not in JITTERS:
        raise MisfitError("must be full, none, or a number from 0 to 1")
    return value if isinstance(value, str) else number(0, 1)(value)


# ------------------------------------------------------------ times
def duration(value: Any) -> float:
    """Read a duration; returns seconds."""
    try:
        return parse_duration(value)
    except ValueError as error:
        raise MisfitError(str(error)) from None


def pause(value: Any) -> float:
    """Read a duration that may be 0."""
    if isinstance(value, int | float) and not isinstance(value, bool) and value == 0:
        return 0.0
    return duration(value)


def moment(value: Any) -> str:
    """Read a time with its zone (RFC 3339)."""
    written = text(value)
    try:
        known = bool(_TIME.fullmatch(written) and datetime.fromisoformat(written.upper()))
    except ValueError:
        known = False
    if not known:
        raise MisfitError(
            f"{written!r} is not a time; write it with its zone, as 2030-01-31T09:00:00+01:00"
        )
    return written


# ------------------------------------------------------------ expressions
def or_expression(read: Read) -> Read:
    """Return a reader that lets texts with `${{ }}` pass for later."""

    def reader(value: Any) -> Any:
        return value if isinstance(value, str) and "${{" in value else read(value)

    return reader


def condition(value: Any) -> str:
    """Read an expression that is written with or without `${{ }}`; returns it without."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if not isinstance(value, str):
        raise MisfitError(f"must be an expression, not {kind_of(value)}")
    try:
        return bare(value)
    except ValueError as error:
        raise MisfitError(str(error)) from None


def items(value: Any) -> Any:
    """Read what `for_each` goes over: a list, or an expression that gives one."""
    if isinstance(value, list):
        if len(value) > MAX_ITEMS:
            raise MisfitError(f"{len(value)} items; at most {MAX_ITEMS} are allowed")
        return value
    if not isinstance(value, str) or "${{" not in value:
        raise MisfitError("must be a list, or an expression `${{ … }}` that gives a list")
    condition(value)
    return value


def uses(value: Any) -> str:
    """Read who does a task."""
    said = text(value)
    if said in USES:
        return said
    if not said.startswith(WORKFLOW):
        known = ", ".join(USES)
        raise MisfitError(f"must be {known} or workflow:<name>{meant(said, [*USES, WORKFLOW])}")
    workflow, at, wanted = said.removeprefix(WORKFLOW).partition("@")
    name(workflow)
    if at:
        version(wanted)
    return said
