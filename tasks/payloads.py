"""Large JSON documents, kept by reference outside the task's row, reachable from every host."""

from __future__ import annotations

import json
import zlib
from typing import Any
from uuid import UUID

from tasks.models import Payload


def save(project_id: int, text: str) -> UUID:
    """Store a JSON text and return its reference."""
    raw = text.encode()
    payload = Payload.objects.create(
        project_id=project_id, content=zlib.compress(raw, 1), size=len(raw)
    )
    return payload.id


def load(inline: Any, reference: UUID | str | None) -> Any:
    """Return the value: the inline one, or the one that the reference names."""
    if reference is None:
        return inline
    content = Payload.objects.values_list("content", flat=True).get(id=reference)
    return json.loads(zlib.decompress(bytes(content)))
