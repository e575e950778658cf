"""Where the expressions stand: `${{ … }}` in the strings of a JSON-like template."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from opscore.texts import below

#: Longer texts are split anew each time, so that the cache stays small.
_CACHED_CHARS = 8_000


@dataclass(frozen=True, slots=True)
class Code:
    """The text between `${{` and `}}`."""

    text: str


_OPEN = re.compile(r"(\$?)\$\{\{")
#: What may hide a bracket from us: comments and strings, raw ones without escapes.
_TOKEN = re.compile(
    r"""//[^\n]*
      | [rR][bB]?(?:\"{3}.*?\"{3} | '{3}.*?'{3} | "[^"\n]*" | '[^'\n]*')
      | \"{3}(?:\\.|[^\\])*?\"{3} | '{3}(?:\\.|[^\\])*?'{3}
      | "(?:\\.|[^"\\\n])*" | '(?:\\.|[^'\\\n])*'
      | [{}] | [^{}'"/rR]+ | .""",
    re.VERBOSE | re.DOTALL,
)


def split(text: str) -> tuple[str | Code, ...]:
    """Split a string into literal text and expressions; `$${{` is the text `${{`.

    Raises ValueError when an expression is not closed.
    """
    return _cached(text) if len(text) <= _CACHED_CHARS else _split(text)


def bare(expression: str) -> str:
    """Return the text of one expression, which may be written without its `${{ }}`.

    Raises ValueError when there is more or less than that.
    """
    text = expression.strip()
    if "${{" in text:
        parts = split(text)
        if len(parts) != 1 or not isinstance(parts[0], Code):
            raise ValueError("must be one expression, with nothing outside its `${{ }}`")
        text = parts[0].text
    if "${{" in text:
        raise ValueError("an expression cannot hold another `${{`")
    if not text:
        raise ValueError("the expression is empty")
    return text


def strings(template: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """Yield (path, string) for every string of a template that may hold an expression."""
    if isinstance(template, str):
        if "${{" in template:
            yield path, template
    elif isinstance(template, Mapping):
        for key, value in template.items():
            yield from strings(value, below(path, key))
    elif isinstance(template, list | tuple):
        for index, value in enumerate(template):
            yield from strings(value, f"{path}[{index}]")


def _split(text: str) -> tuple[str | Code, ...]:
    found: list[str | Code] = []
    literal, place = "", 0
    while opening := _OPEN.search(text, place):
        literal += text[place : opening.start()]
        place = opening.end()
        if opening[1]:
            literal += "${{"
            continue
        end = _end(text, place)
        if end < 0:
            raise ValueError("`${{` is not closed by `}}` (write `$${{` for the text itself)")
        found += [literal, Code(text[place:end].strip())]
        literal, place = "", end + 2
    found.append(literal + text[place:])
    return tuple(part for part in found if part)


_cached = lru_cache(maxsize=4096)(_split)


def _end(text: str, start: int) -> int:
    """Return where the `}}` of the expression that begins at `start` stands; -1: nowhere."""
    depth = 0
    for token in _TOKEN.finditer(text, start):
        if depth == 0 and text.startswith("}}", token.start()):
            return token.start()
        depth += {"{": 1, "}": -1}.get(token[0], 0)
    return -1
