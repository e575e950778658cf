"""Bodies: strict JSON, and definitions kept as text so that errors can name lines."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import IO, Any, NoReturn

from rest_framework.parsers import BaseParser

from opscore.documents import finite
from opscore.errors import InvalidError

#: Deeper documents serve nobody and cost stack in every program that reads them later.
MAX_DEPTH = 64
_SHOWN = 80


class StrictJSON(BaseParser):
    """JSON as RFC 8259 has it: UTF-8, no NaN, no NUL, no lone surrogates, at most 64 deep."""

    media_type = "application/json"

    def parse(
        self,
        stream: IO[Any],
        media_type: str | None = None,
        parser_context: Mapping[str, Any] | None = None,
    ) -> Any:
        """Return the value; raises InvalidError."""
        return parse_json(decoded(_body(parser_context)))


class DefinitionText(BaseParser):
    """The body as text, whatever its type; `request.data` is a str."""

    media_type = "*/*"

    def parse(
        self,
        stream: IO[Any],
        media_type: str | None = None,
        parser_context: Mapping[str, Any] | None = None,
    ) -> Any:
        """Return the text; raises InvalidError when it is not UTF-8."""
        return decoded(_body(parser_context))


class JSONText(DefinitionText):
    """A definition as JSON."""

    media_type = "application/json"


class YAMLText(DefinitionText):
    """A definition as YAML."""

    media_type = "application/yaml"


class YAMLTextOld(DefinitionText):
    """A definition as YAML, under the name from before RFC 9512."""

    media_type = "application/x-yaml"


class YAMLTextPlain(DefinitionText):
    """A definition as YAML, as some clients name it."""

    media_type = "text/yaml"


def decoded(raw: bytes) -> str:
    """Return the text of a body; raises InvalidError naming the byte that is not UTF-8."""
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InvalidError(f"The body is not UTF-8: byte {error.start} is wrong.") from None


def parse_json(text: str) -> Any:
    """Return the value of a JSON text that can be stored; raises InvalidError saying where."""
    try:
        value = json.loads(
            text, parse_constant=_no_constant, parse_float=finite, object_pairs_hook=_once_each
        )
    except json.JSONDecodeError as error:
        raise InvalidError(
            f"The body is not JSON: {error.msg} at line {error.lineno}, column {error.colno}."
        ) from None
    except RecursionError:
        raise InvalidError(_too_deep()) from None
    except ValueError as error:
        # 1e999, and integers of more than 4300 digits, which Python refuses.
        raise InvalidError(f"The body is not valid: {error}.") from None
    check_storable(value)
    return value


def _once_each(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Refuse a name that stands twice: who checked the first value would not have seen the last."""
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise InvalidError(f"The body has {name[:_SHOWN]!r} twice in one object.")
        found[name] = value
    return found


def check_storable(value: Any) -> None:
    """Raise InvalidError for what PostgreSQL cannot store, or what is too deep."""
    todo = [(value, 1)]
    while todo:
        item, depth = todo.pop()
        if depth > MAX_DEPTH:
            raise InvalidError(_too_deep())
        if isinstance(item, dict):
            todo.extend((part, depth + 1) for pair in item.items() for part in pair)
        elif isinstance(item, list):
            todo.extend((part, depth + 1) for part in item)
        elif isinstance(item, str) and not item.isascii():
            _check_encodable(item)
        elif isinstance(item, str) and "\x00" in item:
            raise InvalidError("The body holds a NUL character (\\u0000).")


def _check_encodable(text: str) -> None:
    if "\x00" in text:
        raise InvalidError("The body holds a NUL character (\\u0000).")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise InvalidError("The body holds half of a surrogate pair.") from None


def _too_deep() -> str:
    return f"The body is nested deeper than {MAX_DEPTH} levels."


def _no_constant(name: str) -> NoReturn:
    raise InvalidError(f"The body is not JSON: {name} is no JSON number.")


def _body(context: Mapping[str, Any] | None) -> bytes:
    # `request.body` can be read again: the idempotency check needs it too.
    body: bytes = (context or {})["request"]._request.body  # noqa: SLF001
    return body
