"""Amounts of memory as people write them."""

from __future__ import annotations

import re
from typing import Any

#: A pebibyte: more is a slip of the pen.
MAX_BYTES = 1024**5
_UNITS = {"B": 1, "KiB": 1024, "MiB": 1024**2, "GiB": 1024**3, "TiB": 1024**4}
_SIZE = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,6})?) ?(B|KiB|MiB|GiB|TiB)", re.ASCII)


def parse_size(value: Any) -> int:
    """Return the bytes of `512MiB`, `1.5 GiB` or a whole number of bytes.

    Raises ValueError with a message for people; above zero, at most 1024 TiB.
    """
    size = _bytes(value)
    if size is None:
        raise ValueError(f"{value!r} is not a size; write it as 512MiB or 2GiB")
    if not 0 < size <= MAX_BYTES:
        raise ValueError(f"{value!r} is not above zero and at most 1024 TiB")
    return size


def shown_size(size: float) -> str:
    """Return bytes for people: `512 MiB`, `1.5 GiB`."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.3g} {unit}" if size < 100 else f"{size:.0f} {unit}"
        size /= 1024
    return f"{size:.3g} TiB"


def _bytes(value: Any) -> int | None:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    found = _SIZE.fullmatch(value) if isinstance(value, str) else None
    return int(float(found[1]) * _UNITS[found[2]]) if found else None
