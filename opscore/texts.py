"""Texts: which ones can be kept, and how the place of a value is written."""

from __future__ import annotations

import re
from typing import Any

_PLAIN = re.compile(r"[\w-]+")


def is_storable(text: str) -> bool:
    """Tell whether PostgreSQL can keep the text: no NUL, valid Unicode."""
    return "\0" not in text and not any("\ud800" <= char <= "\udfff" for char in text)


def storable(value: Any) -> Any:
    """Return a value as JSON that PostgreSQL can keep; what is no JSON becomes a text."""
    if isinstance(value, dict):
        return {storable(str(name)): storable(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple | set):
        return [storable(inner) for inner in value]
    if value is None or isinstance(value, bool | int):
        return value
    return (
        str(value).replace("\0", "\N{SYMBOL FOR NULL}").encode("utf-8", "backslashreplace").decode()
    )


def below(path: str, key: str) -> str:
    """Write the path of a key: `tasks.review`, `with["a key"]`."""
    if not _PLAIN.fullmatch(key):
        return f'{path}["{key}"]'
    return f"{path}.{key}" if path else key
