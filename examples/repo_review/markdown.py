"""Markdown for text that comes from a repository: nothing in a file name can break a table."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

_CONTROL = re.compile(r"[\x00-\x1f\x7f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
_MEANING = re.compile(r"([\\`*_\[\]<>|#~])")


def plain(text: str) -> str:
    """Return text of others as text: one line, no markup of its own."""
    return _MEANING.sub(r"\\\1", visible(text))


def code(text: str) -> str:
    """Return a code span; control characters are shown as escapes."""
    safe = visible(text).replace("|", "\\|")
    return f"`` {safe} ``" if "`" in safe else f"`{safe}`"


def table(heads: Sequence[str], rows: Iterable[Sequence[object]]) -> list[str]:
    """Return the lines of a table; a head that ends in `:` is aligned to the right."""
    lines = [
        "| " + " | ".join(head.rstrip(":") for head in heads) + " |",
        "|" + "|".join("---:" if head.endswith(":") else "---" for head in heads) + "|",
    ]
    return lines + ["| " + " | ".join(str(cell) for cell in row) + " |" for row in rows]


def visible(text: str) -> str:
    """Return text on one line, control characters as escapes: safe for a terminal too."""
    return _CONTROL.sub(lambda found: repr(found[0])[1:-1], text)
