"""Texts: which ones can be kept, and how the place of a value is written."""

from __future__ import annotations

import re

_PLAIN = re.compile(r"[\w-]+")


def is_storable(text: str) -> bool:
    """Tell whether PostgreSQL can keep the text: no NUL, valid Unicode."""
    return "\0" not in text and not any("\ud800" <= char <= "\udfff" for char in text)


def below(path: str, key: str) -> str:
    """Write the path of a key: `tasks.review`, `with["a key"]`."""
    if not _PLAIN.fullmatch(key):
        return f'{path}["{key}"]'
    return f"{path}.{key}" if path else key
