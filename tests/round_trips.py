"""The statements that a piece of code sends, those of `opscore.database.query` too."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg


@contextmanager
def round_trips() -> Iterator[list[str]]:
    """Collect the statements that are sent to PostgreSQL."""
    sent: list[str] = []
    execute = psycopg.Cursor.execute

    def count(self: Any, query: Any, *args: Any, **more: Any) -> Any:
        sent.append(str(query))
        return execute(self, query, *args, **more)

    psycopg.Cursor.execute = count  # type: ignore[method-assign]
    try:
        yield sent
    finally:
        psycopg.Cursor.execute = execute  # type: ignore[method-assign]
