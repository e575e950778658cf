"""Expressions in definitions: `${{ … }}` inside the strings of a JSON-like template."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from opscore.errors import InvalidError, Problem
from opscore.texts import below
from tasks.cel import MAX_CHARS, CompileError, EvaluationError, compiled
from tasks.cel_tree import paths
from tasks.cel_words import meant
from tasks.placeholders import Code, bare, split, strings

#: Characters of one rendered template, all its values together.
MAX_RENDERED = 64 * 1024 * 1024


class ExpressionError(InvalidError):
    """An expression has no value."""

    code = "expression"

    def __init__(self, message: str, path: str = "") -> None:
        super().__init__(f"{path}: {message}" if path else message, [Problem(message, path)])
        self.path = path


# ------------------------------------------------------------ references
def references(template: Any) -> frozenset[str]:
    """Return the keys of the tasks that a template reads; texts that are no CEL count not."""
    return frozenset(key for _, text in strings(template) for key in _references_of(text))


def references_of(expression: str) -> frozenset[str]:
    """Return the keys of the tasks that one expression reads, with or without `${{ }}`."""
    try:
        return frozenset(_read_by(bare(expression)))
    except ValueError:
        return frozenset()


def _references_of(text: str) -> frozenset[str]:
    try:
        codes = [part.text for part in split(text) if isinstance(part, Code)]
    except ValueError:
        return frozenset()
    return frozenset(key for code in codes for key in _read_by(code))


def _read_by(code: str) -> Iterator[str]:
    try:
        tree = compiled(code).tree
    except CompileError:
        return
    for (root, steps), _ in paths(tree):
        if root == "tasks" and steps:
            yield str(steps[0])


# ------------------------------------------------------------ render
def render(template: Any, scope: Mapping[str, Any], *, path: str = "") -> Any:
    """Return a copy of the template with every expression replaced by its value.

    A string that is one expression becomes its value, of whatever type (the very object of
    the scope for a plain reference: do not change it); a line break at its end does not count.
    Otherwise values are put into the text: texts as they are, all else as JSON.
    Raises ExpressionError with the path of the string, `path` in front.
    """
    return _Rendering(scope).value(template, path)


def evaluate(expression: str, scope: Mapping[str, Any], *, path: str = "") -> Any:
    """Return the value of one expression, written with or without `${{ }}`.

    Raises ExpressionError with `path`.
    """
    try:
        return _Rendering(scope).code(Code(bare(expression)))
    except ValueError as error:
        raise ExpressionError(str(error), path) from None


class _Rendering:
    def __init__(self, scope: Mapping[str, Any]) -> None:
        self._scope = scope
        self._left = MAX_RENDERED
        self._lengths: dict[int, int] = {}

    def value(self, template: Any, path: str) -> Any:
        if isinstance(template, str):
            return self._string(template, path) if "${{" in template else template
        if isinstance(template, Mapping):
            return {key: self.value(item, below(path, key)) for key, item in template.items()}
        if isinstance(template, list | tuple):
            return [self.value(item, f"{path}[{place}]") for place, item in enumerate(template)]
        return template

    def _string(self, text: str, path: str) -> Any:
        try:
            parts = split(text)
            if isinstance(parts[0], Code) and parts[1:] in {(), ("\n",)}:
                return self.code(parts[0])
            return "".join(
                _as_text(self.code(part)) if isinstance(part, Code) else part for part in parts
            )
        except ValueError as error:
            raise ExpressionError(str(error), path) from None

    def code(self, code: Code) -> Any:
        try:
            value = compiled(code.text).value(self._scope)
        except (CompileError, EvaluationError) as error:
            raise ValueError(f"{error} in `{short(code.text)}`") from None
        self._left -= self._length(value)
        if self._left < 0:
            raise ValueError(f"all values together are larger than {MAX_RENDERED >> 20} MB")
        return value

    def _length(self, value: Any) -> int:
        # The scope keeps its objects alive, so an id stays theirs while we render.
        length = self._lengths.get(id(value))
        if length is None:
            length = _length(value)
            if isinstance(value, dict | list):
                self._lengths[id(value)] = length
        return length


def short(text: str) -> str:
    """Return an expression as messages quote it: one line, not too long."""
    line = " ".join(text.split())
    return line if len(line) <= 80 else f"{line[:79]}…"


def _length(value: Any) -> int:
    total, stack = 0, [value]
    while stack:
        item = stack.pop()
        total += len(item) + 2 if isinstance(item, str) else 4
        if isinstance(item, dict):
            stack += item.keys()
            stack += item.values()
        elif isinstance(item, list):
            stack += item
    return total


def input_names(schema: Mapping[str, Any] | None) -> frozenset[str] | None:
    """Return the inputs that a JSON Schema declares; None when it allows others too."""
    if not schema or not isinstance(schema.get("properties"), Mapping):
        return None
    opens = {"patternProperties", "allOf", "anyOf", "oneOf", "if", "$ref", "dependentSchemas"}
    if schema.get("additionalProperties", False) is not False or opens & schema.keys():
        return None
    return frozenset(schema["properties"])


def _as_text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


__all__ = [
    "MAX_CHARS",
    "ExpressionError",
    "evaluate",
    "input_names",
    "meant",
    "references",
    "references_of",
    "render",
    "short",
]
