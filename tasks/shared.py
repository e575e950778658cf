"""The shared context of a run: versioned values that its agents read and write, bounded."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from uuid import UUID

from django.db import OperationalError, transaction
from psycopg.errors import LockNotAvailable

from agents.exchange import Entry
from opscore.config import load_config
from opscore.database import Row, query
from opscore.errors import ConflictError, InvalidError, Problem, TooLargeError, UnavailableError
from tasks.writers import HELD, HELD_BY_RESULT, WRITABLE, Writer, encoded, refusal

#: Keys are parts of addresses too.
KEY = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:@+~-]{0,199}")


#: How long a write waits for those of others. A transactional handler may keep them all out for as
#: long as it runs, and whoever waits holds a thread and keeps his own task from everybody.
WAIT_S = 1.0


class ContextBusyError(UnavailableError):
    """A transactional handler is writing to the run's context and has not ended; try again."""


class VersionMismatchError(ConflictError):
    """The entry has another version: read it again and decide anew."""

    code = "version_conflict"

    def __init__(self, key: str, version: int) -> None:
        state = f"has version {version}" if version else "does not exist"
        super().__init__(f"The entry {key!r} {state}.")
        self.version = version
        """The present one; 0: there is no such entry."""
        self.extra = {"version": version}


def entries(run_id: UUID) -> list[Entry]:
    """Return all entries of a run, by key; bounded as writes are."""
    return [_entry(row) for row in query(_ALL, {"run": run_id})]


def get(run_id: UUID, key: str) -> Entry | None:
    """Return one entry; None when there is none."""
    rows = query(_ONE, {"run": run_id, "key": key})
    return _entry(rows[0]) if rows else None


def put(
    run_id: UUID, key: str, value: Any, *, writer: Writer, if_version: int | None = None
) -> tuple[Entry, bool]:
    """Write an entry; return it and whether it is new.

    `if_version`: only over that version; 0: only when there is none. Writes of one run wait for
    each other. Raises VersionMismatchError, InvalidError (key or value), TooLargeError (bounds),
    NotFoundError, ConflictError when the run or the writer's attempt is over, ContextBusyError
    after WAIT_S, but not for who writes with a result.
    """
    if not KEY.fullmatch(key):
        rule = "1 to 200 letters, digits and '_.:@+~-', a letter, digit or '_' first"
        raise InvalidError("The key is not valid.", [Problem(f"a key is {rule}", "key")])
    bounds = load_config()
    text = encoded(value, "value", bounds.shared_value_bytes, "OPSCORE_SHARED_VALUE_BYTES")
    params = {
        "run": run_id,
        "key": key,
        "value": text,
        "size": len(text.encode()),
        "by": writer.name,
        "if_version": if_version,
        "max_entries": bounds.shared_entries,
        "max_bytes": bounds.shared_run_bytes,
    }
    row = _locked(run_id, writer, key, _PUT, params)
    if row["version"] is None:
        raise _refused(key, if_version, row)
    return _entry(row), not row["was"]


def delete(run_id: UUID, key: str, *, writer: Writer, if_version: int | None = None) -> bool:
    """Remove an entry; return whether there was one.

    Raises VersionMismatchError when `if_version` is given and is not the present one,
    NotFoundError, ConflictError as `put` does.
    """
    params = {"run": run_id, "key": key, "if_version": if_version}
    row = _locked(run_id, writer, key, _DELETE, params)
    if if_version is not None and if_version != row["was"]:
        raise VersionMismatchError(key, row["was"])
    return bool(row["was"])


def _locked(
    run_id: UUID, writer: Writer, key: str, statement: str, params: Mapping[str, Any]
) -> Row:
    """Run one statement while nobody else writes to this run's context."""
    # The lock is a statement of its own: what follows must see what the one before committed.
    with _waiting_not_long(), transaction.atomic():
        if not writer.with_result:
            query("SELECT set_config('lock_timeout', %(ms)s, true)", {"ms": f"{WAIT_S * 1000:.0f}"})
        if query(_LOCK[writer.with_result], {"run": run_id, **writer.params()}):
            return query(statement, params)[0]
    raise refusal(run_id, writer, f"context {key}"[:200])


@contextmanager
def _waiting_not_long() -> Iterator[None]:
    try:
        yield
    except OperationalError as error:
        if not isinstance(error.__cause__, LockNotAvailable):
            raise
        raise ContextBusyError from None


def _refused(key: str, if_version: int | None, row: Row) -> Exception:
    if if_version is not None and if_version != row["was"]:
        return VersionMismatchError(key, row["was"])
    bounds = load_config()
    if row["entries"] > bounds.shared_entries:
        return TooLargeError(
            f"The run's context has {bounds.shared_entries} entries already "
            "(OPSCORE_SHARED_ENTRIES). Delete some, or put more into each."
        )
    return TooLargeError(
        f"All values of the run's context would have {row['bytes']} bytes, more than "
        f"{bounds.shared_run_bytes} (OPSCORE_SHARED_RUN_BYTES)."
    )


def _entry(row: Row) -> Entry:
    return Entry(**{name: row[name] for name in _FIELDS})


_FIELDS = ("key", "version", "value", "updated_at", "updated_by")

_ALL = """
SELECT key, version, value::json, updated_at, updated_by FROM tasks_sharedentry
 WHERE run_id = %(run)s ORDER BY key COLLATE "C"
"""

_ONE = """
SELECT key, version, value::json, updated_at, updated_by FROM tasks_sharedentry
 WHERE run_id = %(run)s AND key = %(key)s
"""

# No row: the run has ended, or the writer's attempt is over.
_LOCK = {
    with_result: f"""
WITH {held}
INSERT INTO tasks_sharedtotal AS total (run_id, version, entries, bytes)
SELECT r.id, 0, 0, 0 FROM tasks_run r WHERE r.id = %(run)s AND {WRITABLE}
    ON CONFLICT (run_id) DO UPDATE SET version = total.version
RETURNING id
"""  # noqa: S608 - constants; values are bound
    for with_result, held in ((False, HELD), (True, HELD_BY_RESULT))
}

# What is above a bound that was lowered may still be written over, if it does not grow.
_PUT = """
WITH old AS (
  SELECT version, size FROM tasks_sharedentry WHERE run_id = %(run)s AND key = %(key)s),
wish AS (
  SELECT t.id, t.version + 1 AS version, COALESCE(o.version, 0) AS was,
         t.entries + (o.version IS NULL)::int AS entries, t.entries AS had_entries,
         t.bytes + %(size)s - COALESCE(o.size, 0) AS bytes, t.bytes AS had_bytes
    FROM tasks_sharedtotal t LEFT JOIN old o ON true
   WHERE t.run_id = %(run)s),
granted AS (
  SELECT * FROM wish
   WHERE (%(if_version)s::bigint IS NULL OR was = %(if_version)s)
     AND entries <= greatest(%(max_entries)s, had_entries)
     AND bytes <= greatest(%(max_bytes)s, had_bytes)),
counted AS (
  UPDATE tasks_sharedtotal t SET version = g.version, entries = g.entries, bytes = g.bytes
    FROM granted g WHERE t.id = g.id),
written AS (
  INSERT INTO tasks_sharedentry (run_id, key, version, value, size, updated_at, updated_by)
  SELECT %(run)s, %(key)s, version, %(value)s::jsonb, %(size)s, clock_timestamp(), %(by)s
    FROM granted
      ON CONFLICT (run_id, key) DO UPDATE
     SET version = excluded.version, value = excluded.value, size = excluded.size,
         updated_at = excluded.updated_at, updated_by = excluded.updated_by
  RETURNING key, version, value::json, updated_at, updated_by)
SELECT w.*, x.was, x.entries, x.bytes FROM wish x LEFT JOIN written w ON true
"""

_DELETE = """
WITH old AS (
  SELECT id, version FROM tasks_sharedentry WHERE run_id = %(run)s AND key = %(key)s),
gone AS (
  DELETE FROM tasks_sharedentry e USING old o
   WHERE e.id = o.id AND (%(if_version)s::bigint IS NULL OR o.version = %(if_version)s)
  RETURNING e.size),
counted AS (
  UPDATE tasks_sharedtotal t SET entries = t.entries - 1, bytes = t.bytes - g.size
    FROM gone g WHERE t.run_id = %(run)s)
SELECT COALESCE((SELECT version FROM old), 0) AS was
"""
