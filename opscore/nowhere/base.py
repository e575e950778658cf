"""Django's backend for PostgreSQL, without any server behind it."""

from __future__ import annotations

from typing import Any, NoReturn

from django.db.backends.postgresql import base

from opscore.errors import UnavailableError


class DatabaseWrapper(base.DatabaseWrapper):
    """Refuses to connect: libpq would take whatever PostgreSQL this machine has."""

    def get_new_connection(self, conn_params: dict[str, Any]) -> NoReturn:
        """Raise UnavailableError, which says what to do."""
        raise UnavailableError("No platform runs here: `make up`, or set OPSCORE_DATABASE_URL.")
