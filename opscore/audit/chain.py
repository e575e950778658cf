"""The chain: sealing rows in batches, finding the first link that is broken, removing old rows."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Generator
from contextlib import closing
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from django.db import transaction

from opscore.audit.record import Actor, note
from opscore.database import Row, query, streamed
from opscore.logs import get_logger
from opscore.models import AuditEntry

log = get_logger(__name__)

#: What the first row of all follows.
START = "0" * 64
TRIMMED = "audit.trimmed"
_RETENTION = Actor("retention", "platform")
_BATCH = 1000
#: "The chain is being written": any constant does.
_LOCK = "SELECT pg_advisory_xact_lock(203948577203)"
_HEAD = """SELECT number, hash FROM opscore_auditentry WHERE number IS NOT NULL
           ORDER BY number DESC LIMIT 1"""
_FIELDS = """a.id, a.number, a.at, a.project_id, a.actor, a.actor_kind, a.key,
             host(a.address) AS address, a.request_id, a.action, a.target, a.status, a.data,
             a.previous, a.hash"""
_UNSEALED = f"""SELECT {_FIELDS} FROM opscore_auditentry a WHERE a.number IS NULL
                ORDER BY a.id LIMIT %(limit)s"""  # noqa: S608 - constants
_SEALED = f"""SELECT {_FIELDS} FROM opscore_auditentry a WHERE a.number IS NOT NULL
              ORDER BY a.number"""  # noqa: S608
#: What the sealer has left, in a table of its own: rows cut off at the end are missed by it.
_KEPT = "SELECT number, hash FROM opscore_audithead WHERE id = 1"
_KEEP = """INSERT INTO opscore_audithead (id, number, hash) VALUES (1, %(number)s, %(hash)s)
           ON CONFLICT (id) DO UPDATE SET number = excluded.number, hash = excluded.hash"""
_SEAL = """
UPDATE opscore_auditentry a SET number = s.number, previous = s.previous, hash = s.hash
  FROM unnest(%(ids)s::bigint[], %(numbers)s::bigint[], %(previous)s::text[], %(hashes)s::text[])
       AS s(id, number, previous, hash)
 WHERE a.id = s.id"""


@dataclass(frozen=True)
class Verdict:
    """What `verify` found."""

    ok: bool
    checked: int
    """Rows that were looked at."""
    first: int | None
    last: int | None
    head: str
    """Hash of the last row: kept elsewhere, it proves later that nothing was cut off."""
    broken: int | None = None
    """Number of the first row that is not what it was, or is missing."""
    problem: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Return it for an answer."""
        return asdict(self)


@dataclass
class _Walk:
    """How far `verify` has come."""

    checked: int = 0
    first: int | None = None
    anchor: tuple[int, str] | None = None
    """The row that the first one follows, where older ones were removed."""
    is_anchored: bool = True
    number: int = 0
    hash: str = START

    def verdict(self, broken: int | None = None, problem: str = "") -> Verdict:
        last = self.number if self.checked else None
        return Verdict(broken is None, self.checked, self.first, last, self.hash, broken, problem)


def seal() -> int:
    """Give all rows that have none their number and hash; return how many there were.

    Harmless when several do it at once. The head goes to the process's log: a copy that nobody
    who can only write to the database can change.
    """
    sealed = 0
    while count := _seal_batch():
        sealed += count
        if count < _BATCH:
            break
    return sealed


def verify(expect: tuple[int, str] | None = None) -> Verdict:
    """Seal what is not sealed, then follow the chain to the first broken link.

    `expect` is a number and its hash from elsewhere, beside those that the sealer has kept: the
    chain must still hold them, so that rows cut off at its end, or a chain made anew, are found.
    """
    seal()
    expected = [head for head in (_kept_head(), expect) if head is not None]
    walk = _Walk()
    with closing(_sealed_rows()) as rows:
        for row in rows:
            if problem := _problem(walk, row, expected):
                return walk.verdict(walk.number + 1 if walk.checked else row["number"], problem)
            _follow(walk, row)
    if not walk.is_anchored:
        return walk.verdict(walk.first, "the rows before it were not removed by retention")
    if any(walk.number < number for number, _ in expected):
        return walk.verdict(walk.number + 1, "rows at the end are missing")
    return walk.verdict()


def trim(before: datetime, by: Actor = _RETENTION) -> int:
    """Remove the rows that are older, and leave a row that says up to which; return how many.

    That row is the anchor of what remains: `verify` asks for it.
    """
    with transaction.atomic():
        query(_LOCK, {})
        while _seal_batch() == _BATCH:
            pass
        last = _last_before(before)
        if last is None:
            return 0
        count = AuditEntry.objects.filter(number__lte=last["number"]).count()
        data = {"number": last["number"], "hash": last["hash"], "rows": count}
        note(TRIMMED, by, data=data)
        _seal_batch()
        # The trigger lets this transaction alone delete, and sealed rows only.
        query("SELECT set_config('opscore.audit_trim', 'on', true)", {})
        AuditEntry.objects.filter(number__lte=last["number"]).delete()
        query("SELECT set_config('opscore.audit_trim', 'off', true)", {})
    return count


def hash_of(previous: str, number: int, row: Row) -> str:
    """Return the hash of a row that follows the one with the hash `previous`."""
    told = {
        name: row[name]
        for name in (
            "project_id",
            "actor",
            "actor_kind",
            "key",
            "address",
            "request_id",
            "action",
            "target",
            "status",
            "data",
        )
    }
    told |= {"number": number, "at": row["at"].astimezone(UTC).isoformat(timespec="microseconds")}
    text = json.dumps(told, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(f"{previous}{text}".encode()).hexdigest()


def _seal_batch() -> int:
    with transaction.atomic():
        query(_LOCK, {})
        rows = [_read(row) for row in query(_UNSEALED, {"limit": _BATCH})]
        if not rows:
            return 0
        number, previous = _head()
        sealed: dict[str, list[Any]] = {"ids": [], "numbers": [], "previous": [], "hashes": []}
        for row in rows:
            number += 1
            sealed["ids"].append(row["id"])
            sealed["numbers"].append(number)
            sealed["previous"].append(previous)
            previous = hash_of(previous, number, row)
            sealed["hashes"].append(previous)
        query(_SEAL, sealed)
        query(_KEEP, {"number": number, "hash": previous})
    log.info("audit log sealed", number=number, hash=previous)
    return len(rows)


def _head() -> tuple[int, str]:
    """Return what the next row follows: what the sealer left, whatever became of the rows."""
    kept = _kept_head()
    rows = query(_HEAD, {})
    found = (rows[0]["number"], rows[0]["hash"]) if rows else (0, START)
    if kept is not None and found != kept:
        log.error("the audit log was cut or made anew", kept=kept, found=found)
    return kept or found


def _kept_head() -> tuple[int, str] | None:
    return next(((row["number"], row["hash"]) for row in query(_KEPT, {})), None)


def _sealed_rows() -> Generator[Row, None, None]:
    # All as they are at one moment: retention may be cutting the old end.
    with closing(streamed(_SEALED, {})) as rows:
        yield from map(_read, rows)


def _read(row: Row) -> Row:
    # Django has JSON columns come as text.
    return row | {"data": json.loads(row["data"])}


def _problem(walk: _Walk, row: Row, expected: list[tuple[int, str]]) -> str:
    """Return what is wrong with the next row; '': nothing."""
    if walk.checked and row["number"] != walk.number + 1:
        return "the row is missing"
    if walk.checked and row["previous"] != walk.hash:
        return "it does not follow the row before it"
    if row["hash"] != hash_of(row["previous"], row["number"], row):
        return "it was changed"
    if any(row["number"] == number and row["hash"] != known for number, known in expected):
        return "it is not the row that was expected"
    return ""


def _follow(walk: _Walk, row: Row) -> None:
    if not walk.checked:
        walk.first, walk.anchor = row["number"], (row["number"] - 1, row["previous"])
        walk.is_anchored = walk.anchor == (0, START)
    told = row["data"] if row["action"] == TRIMMED else {}
    walk.is_anchored |= (told.get("number"), told.get("hash")) == walk.anchor
    walk.checked, walk.number, walk.hash = walk.checked + 1, row["number"], row["hash"]


def _last_before(before: datetime) -> Row | None:
    """Return the last row of the old end of the chain: all rows up to it are older."""
    rows = query(
        """SELECT number, hash FROM opscore_auditentry WHERE number = COALESCE(
               (SELECT min(number) - 1 FROM opscore_auditentry WHERE at >= %(before)s),
               (SELECT max(number) FROM opscore_auditentry))""",
        {"before": before},
    )
    return rows[0] if rows else None
