"""What people name by its id or its name."""

from __future__ import annotations

import difflib
from typing import TypeVar
from uuid import UUID

from django.db.models import Model, QuerySet

from opscore.errors import NotFoundError

M = TypeVar("M", bound=Model)
#: Names that a misspelt one is compared with.
_MOST = 1000


def by_id_or_name(rows: QuerySet[M], ref: str | UUID, noun: str) -> M:
    """Return one of some rows; raises NotFoundError with close names."""
    try:
        found = rows.filter(pk=UUID(str(ref))).first()
    except ValueError:
        found = rows.filter(name=ref).first()
    if found:
        return found
    names = rows.order_by("name").values_list("name", flat=True)[:_MOST]
    close = difflib.get_close_matches(str(ref), list(names), 3)
    hint = f" Did you mean {', '.join(close)}?" if close else ""
    raise NotFoundError(f"There is no {noun} {ref}.{hint}")
