"""Writing one row of the audit log. Rows are sealed later, outside of everybody's transaction."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

from django.db import Error, connection, transaction

from opscore import origin
from opscore.database import query
from opscore.logs import get_logger
from opscore.models import Project
from opscore.quotas import Quota
from opscore.texts import storable

log = get_logger(__name__)

#: By hand: each call that changes something writes one, and the ORM takes twice as long.
_INSERT = """
INSERT INTO opscore_auditentry (at, project_id, actor, actor_kind, key, address, request_id, action,
                                target, status, data, previous, hash)
VALUES (statement_timestamp(), %(project)s, %(actor)s, %(actor_kind)s, %(key)s,
        %(address)s::text::inet, %(request_id)s, %(action)s, %(target)s, %(status)s::smallint,
        %(data)s::jsonb, '', '')"""

#: Rows about refused requests that one source may cause in a minute and process: whoever has
#: no right to anything must not be able to fill the disk.
_REFUSED_PER_MINUTE = 30


@dataclass(frozen=True)
class Actor:
    """Who did it."""

    name: str = ""
    kind: str = ""
    """`key`, `user`, `command`, `platform`; empty: nobody knows."""
    key: str = ""
    """Prefix of the API key."""


def note(
    action: str,
    actor: Actor,
    *,
    target: str = "",
    status: int | None = None,
    project: Project | None = None,
    data: Mapping[str, Any] | None = None,
) -> None:
    """Write one row. What cannot be written stands in the process's log instead."""
    source = origin.current()
    fields = {
        "actor": storable(actor.name)[:150],
        "actor_kind": actor.kind,
        "key": actor.key,
        "address": source.address,
        "request_id": source.request_id,
        "action": storable(action)[:120],
        "target": storable(target)[:300],
        "status": status,
        "data": json.dumps(storable(dict(data or {}))),
        "project": project.pk if project else None,
    }
    try:
        with _whole():
            query(_INSERT, fields)
    except Error:
        # The request itself is done; to fail it now would be a lie.
        log.exception("a row of the audit log is lost", **fields)


def _whole() -> AbstractContextManager[object]:
    # A row that fails must not spoil a transaction that is open; without one, each is its own.
    return transaction.atomic() if connection.in_atomic_block else nullcontext()


refusals = Quota(_REFUSED_PER_MINUTE)


def refusal_is_noted(kind: str, key: str = "") -> bool:
    """Tell whether a refusal gets a row; those that got none are one row, a minute later.

    Each kind has rows of its own, and so has each key that is known: strangers cannot hide
    behind their number what somebody else does.
    """
    if count := refusals.left_out():
        note("refusals", Actor("audit", "platform"), data={"not recorded": count})
    return refusals.takes(f"{kind} {key or origin.source_of(origin.current().address)}")
