"""YAML and JSON text to plain data: strict, and every path knows its line.

YAML is read from the parser's events, so nothing that a text can say is built or repeated
before it is checked. PyYAML's C parser needs 0.05 s for 1,000 tasks. What its events lack is
decided here: scalars mean what YAML 1.2 says.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NoReturn

import yaml

from opscore.errors import InvalidError, Problem, TooLargeError
from opscore.texts import below, is_storable

MAX_BYTES = 4 * 1024 * 1024
MAX_DEPTH = 32
MAX_KEY = 1000
_MAX_DIGITS = 100
_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass
class Document:
    """What a text says."""

    data: dict[str, Any] = field(default_factory=dict)
    lines: dict[str, int] = field(default_factory=dict)
    """Path -> line, from 1."""
    problems: list[Problem] = field(default_factory=list)
    """Duplicate keys; one value of each was kept."""

    def line_of(self, path: str) -> int | None:
        """Return the line of a path, or of the nearest thing around it."""
        while path and path not in self.lines:
            path = parent(path)
        return self.lines.get(path)


def parent(path: str) -> str:
    """Return the path of what a path is in.

    Where a key itself has quotes and brackets it may be the path of nothing; its parents lead
    to what is there.
    """
    start = path.rfind('["') if path.endswith('"]') else max(path.rfind("."), path.rfind("["))
    return path[: max(start, 0)]


def read(
    text: str | bytes, media_type: str = "yaml", *, expected: str = "a map of keys"
) -> Document:
    """Read one YAML or JSON object ("yaml", "json"); `expected` names it to people.

    Raises InvalidError when the text cannot be read at all: syntax, encoding, aliases, tags,
    more than one document, nesting; TooLargeError above 4 MiB. Duplicate keys are problems
    of the document, so that whatever else is wrong can be told with them.
    """
    decoded = _decoded(text)
    document = _read_json(decoded) if media_type == "json" else _read_yaml(decoded)
    if not isinstance(document.data, dict):
        _refuse(f"{expected} is expected, not {kind_of(document.data)}", 1)
    if "\\" in decoded:
        _check_escapes(document.data, "", document)
    return document


def _check_escapes(value: Any, path: str, document: Document) -> None:
    """Refuse what only an escape can say and PostgreSQL cannot keep."""
    if isinstance(value, str):
        if not is_storable(value):
            message = "NUL characters and halves of surrogate pairs are not allowed"
            _refuse(message, document.line_of(path), path)
    elif isinstance(value, dict):
        for key, item in value.items():
            _check_escapes(key, below(path, key), document)
            _check_escapes(item, below(path, key), document)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            _check_escapes(item, f"{path}[{index}]", document)


def kind_of(value: Any) -> str:
    """Name the type of a value in words."""
    names = {dict: "a map", list: "a list", str: "text", bool: "true or false", type(None): "empty"}
    return names.get(type(value), "a number")


def _refuse(message: str, line: int | None = None, path: str = "") -> NoReturn:
    raise InvalidError("The text cannot be read.", [Problem(message, path, line)])


def _decoded(text: str | bytes) -> str:
    raw = text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass")
    if len(raw) > MAX_BYTES:
        raise TooLargeError(f"The text is larger than {MAX_BYTES >> 20} MiB.")
    try:
        decoded = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        _refuse("this is not UTF-8 text", raw[: error.start].count(b"\n") + 1)
    if "\0" in decoded:
        _refuse("NUL characters are not allowed", decoded[: decoded.index("\0")].count("\n") + 1)
    return decoded


# ------------------------------------------------------------ YAML
def _read_yaml(text: str) -> Document:
    document = Document()
    try:
        document.data = _data(_Events(text), document)
    except yaml.YAMLError as error:
        _refuse(f"not valid YAML: {_syntax(error, text)}", _error_line(error, text))
    return document


def _data(events: _Events, document: Document) -> Any:
    """Build the one document; None when there is none."""
    if isinstance(events.next(), yaml.StreamEndEvent):
        return None
    data = _Builder(events, document).value(events.next(), "", 0)
    events.next()  # the document's end
    more = events.next()
    if not isinstance(more, yaml.StreamEndEvent):
        _refuse("there is more than one document; send one at a time", more.start_mark.line + 1)
    return data


class _Events:
    def __init__(self, text: str) -> None:
        self._events: Iterator[Any] = yaml.parse(text, Loader=_Loader)
        next(self._events)  # the stream's start

    def next(self) -> Any:
        return next(self._events)


class _Builder:
    """Builds data from events, and refuses what would make them more than a tree of values."""

    def __init__(self, events: _Events, document: Document) -> None:
        self._events = events
        self._document = document

    def value(self, event: Any, path: str, depth: int) -> Any:
        line = event.start_mark.line + 1
        self._document.lines.setdefault(path, line)
        self._guard(event, path, depth, line)
        if isinstance(event, yaml.ScalarEvent):
            return _scalar(event, path, line)
        if isinstance(event, yaml.SequenceStartEvent):
            return self._list(path, depth)
        return self._map(path, depth)

    def _guard(self, event: Any, path: str, depth: int, line: int) -> None:
        if event.anchor is not None:
            _refuse("anchors (&) and aliases (*) are not allowed; write it out", line, path)
        if event.tag not in {None, "!"}:
            _refuse(f"tags are not allowed: {event.tag}", line, path)
        if depth > MAX_DEPTH:
            _refuse(f"nested more than {MAX_DEPTH} levels deep", line, path)

    def _list(self, path: str, depth: int) -> list[Any]:
        items: list[Any] = []
        while not isinstance(event := self._events.next(), yaml.SequenceEndEvent):
            items.append(self.value(event, f"{path}[{len(items)}]", depth + 1))
        return items

    def _map(self, path: str, depth: int) -> dict[str, Any]:
        items: dict[str, Any] = {}
        while not isinstance(event := self._events.next(), yaml.MappingEndEvent):
            line = event.start_mark.line + 1
            key = self._key(event, path, line)
            where = below(path, key)
            if key in items:
                self._document.problems.append(_duplicate(key, where, line, self._document.lines))
                # Read on, so that all duplicates are told, but keep the first.
                self.value(self._events.next(), where, depth + 1)
                continue
            self._document.lines[where] = line
            items[key] = self.value(self._events.next(), where, depth + 1)
        return items

    def _key(self, event: Any, path: str, line: int) -> str:
        self._guard(event, path, 0, line)
        key = _scalar(event, path, line) if isinstance(event, yaml.ScalarEvent) else None
        if not isinstance(key, str):
            written = f": {event.value!r}" if isinstance(event, yaml.ScalarEvent) else ""
            _refuse(f"keys must be texts, put them in quotes{written}", line, path)
        _check_length(key, path, line)
        return key


def _check_length(key: str, path: str, line: int) -> None:
    if len(key) > MAX_KEY:
        count = f"{len(key):,} characters; at most {MAX_KEY:,} are allowed"
        _refuse(f"the key `{key[:30]}…` has {count}", line, path)


def _duplicate(key: str, path: str, line: int, lines: dict[str, int]) -> Problem:
    return Problem(f"`{key}` stands twice, first in line {lines[path]}", path, line)


#: The core schema of YAML 1.2: what a plain scalar may mean besides text.
_WORDS = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
_INT = re.compile(r"[-+]?[0-9]{1,100}|0o[0-7]{1,100}|0x[0-9a-fA-F]{1,100}", re.ASCII)
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?", re.ASCII)
_NO_NUMBER = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")


def _scalar(event: Any, path: str, line: int) -> Any:
    text: str = event.value
    if event.tag == "!" or not event.implicit[0]:
        return text
    if text in _WORDS:
        return _WORDS[text]
    if _INT.fullmatch(text):
        base = {"0o": 8, "0x": 16}.get(text[:2], 10)
        return int(text, base)
    is_float = _FLOAT.fullmatch(text) is not None
    if _NO_NUMBER.fullmatch(text) or (is_float and not math.isfinite(float(text))):
        _refuse(f"{text} is not a number that JSON knows; put it in quotes", line, path)
    return float(text) if is_float else text


def _syntax(error: yaml.YAMLError, text: str) -> str:
    problem = getattr(error, "problem", None) or getattr(error, "reason", None) or str(error)
    context = getattr(error, "context", None)
    message = f"{context}: {problem}" if context else str(problem)
    line = _error_line(error, text)
    written = text.splitlines()[line - 1 : line] if line else []
    if written and "${{" in written[0]:
        message += "; put a value that has `${{` inside { } or [ ], or after a `: `, in quotes"
    return message


def _error_line(error: yaml.YAMLError, text: str) -> int | None:
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    if mark:
        return int(mark.line) + 1
    place = getattr(error, "position", None)
    return text[:place].count("\n") + 1 if isinstance(place, int) else None


# ------------------------------------------------------------ JSON
def _read_json(text: str) -> Document:
    try:
        data = json.loads(
            text if text.strip() else "null",
            parse_constant=_not_json,
            parse_float=finite,
            parse_int=_int,
        )
    except json.JSONDecodeError as error:
        _refuse(f"not valid JSON: {error.msg} (column {error.colno})", error.lineno)
    except RecursionError:
        _refuse(f"nested more than {MAX_DEPTH} levels deep")
    except ValueError as error:
        _refuse(f"not valid JSON: {error}")
    document = Document(data)
    _locate(text, document)
    return document


def _not_json(word: str) -> NoReturn:
    raise ValueError(f"{word} is not a number that JSON knows")


def _int(text: str) -> int:
    if len(text) > _MAX_DIGITS:
        raise ValueError(f"a number has {len(text)} digits")
    return int(text)


def finite(text: str) -> float:
    """Return a number of a JSON text; raises ValueError for one that only infinity can stand for."""
    value = float(text)
    return value if math.isfinite(value) else _not_json(text)


_JSON_WORD = re.compile(r'"(?:\\.|[^"\\])*"|[{}\[\]:,]|\n|[^\s{}\[\]:,"]+')


@dataclass
class _Place:
    """An open map or list of a JSON text."""

    path: str
    is_map: bool
    keys: set[str] = field(default_factory=set)
    count: int = 0
    key: str | None = None


def _locate(text: str, document: Document) -> None:
    """Find the line of every path, and the duplicate keys; the text is known to be JSON."""
    stack: list[_Place] = []
    line = 1
    for match in _JSON_WORD.finditer(text):
        word = match[0]
        if word == "\n":
            line += 1
        elif word in "]}":
            stack.pop()
        elif word == ",":
            stack[-1].count += 1
            stack[-1].key = None
        elif word != ":":
            path = _entered(word, stack, line, document)
            if path is not None and word in "[{":
                stack.append(_Place(path, word == "{"))
            if len(stack) > MAX_DEPTH + 1:
                _refuse(f"nested more than {MAX_DEPTH} levels deep", line, path or "")


def _entered(word: str, stack: list[_Place], line: int, document: Document) -> str | None:
    """Return the path of the value that begins here; None when it was a key."""
    if not stack:
        path = ""
    elif not stack[-1].is_map:
        path = f"{stack[-1].path}[{stack[-1].count}]"
    elif stack[-1].key is None:
        _enter_key(json.loads(word), stack[-1], line, document)
        return None
    else:
        path = below(stack[-1].path, stack[-1].key)
    document.lines.setdefault(path, line)
    return path


def _enter_key(key: str, place: _Place, line: int, document: Document) -> None:
    _check_length(key, place.path, line)
    path = below(place.path, key)
    if key in place.keys:
        document.problems.append(_duplicate(key, path, line, document.lines))
    place.keys.add(key)
    place.key = key
    document.lines.setdefault(path, line)
