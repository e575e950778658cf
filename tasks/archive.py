"""Archives of runs: gzip JSON Lines, one line a run, on the disk before its rows are deleted."""

from __future__ import annotations

import gzip
import json
import os
import secrets
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple
from uuid import UUID

import psycopg
from django.db import connection, models
from psycopg import sql

from opscore.database import query
from opscore.errors import InvalidError, NotFoundError
from opscore.models import Event
from tasks.models import Run, Task

SUFFIX = ".jsonl.gz"
#: Rows of one kind that are in memory at once: a task's row may hold 256 KiB of result.
_FETCH = 100


def write(folder: Path, run_ids: Sequence[UUID]) -> Path:
    """Write these runs with all that belongs to them into a new file and return its path.

    When this returns, the file is complete and on the disk; when it raises (OSError), there is
    none. Memory is bounded, whatever a run holds. Needs an open transaction.
    """
    folder.mkdir(parents=True, exist_ok=True)
    name = f"runs-{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{secrets.token_hex(4)}{SUFFIX}"
    draft, final = folder / f".{name}.part", folder / name
    try:
        # Results may be confidential: the file is for its owner only.
        handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "wb") as raw:
            with gzip.open(raw, "wt", encoding="utf-8", newline="\n") as text:
                text.writelines(_lines(sorted(run_ids)))
            raw.flush()
            os.fsync(raw.fileno())
        draft.rename(final)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
    # The names must be on the disk too, that of a new folder included.
    _sync(folder)
    _sync(folder.parent)
    return final


def read(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the runs of an archive, or of all archives of a folder, as they were written.

    Raises NotFoundError when there is no such file, InvalidError when it is no archive.
    """
    for file in sorted(path.glob(f"*{SUFFIX}")) if path.is_dir() else [path]:
        try:
            with gzip.open(file, "rt", encoding="utf-8") as lines:
                yield from map(_line, lines)
        except OSError as error:
            if isinstance(error, gzip.BadGzipFile):
                raise InvalidError(f"{file} is no archive of runs: it is not gzip.") from None
            raise NotFoundError(f"{file} cannot be read: {error.strerror}.") from None
        except (ValueError, EOFError, zlib.error) as error:
            raise InvalidError(f"{file} is no archive of runs, or damaged: {error}.") from None


def _line(text: str) -> dict[str, Any]:
    line: Any = json.loads(text)
    if not isinstance(line, dict) or not {"run", "tasks"} <= line.keys():
        raise ValueError("a line holds no run")
    return line


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


# ------------------------------------------------------------ rows to text
def _lines(run_ids: list[UUID]) -> Iterator[str]:
    """Yield the file's text in pieces; what PostgreSQL wrote as JSON passes unparsed."""
    with ExitStack() as stack:
        runs = _Rows(stack, _RUNS, run_ids)
        parts = {part.name: _Rows(stack, part, run_ids) for part in _parts()}
        for run_id in run_ids:
            for run in runs.of(run_id):
                yield f'{{"run": {run}'
                for name, rows in parts.items():
                    yield f', "{name}": ['
                    for place, row in enumerate(rows.of(run_id)):
                        yield f", {row}" if place else row
                    yield "]"
                yield "}\n"


class _Part(NamedTuple):
    """One kind of rows: how they are read, in the order of their runs, and written."""

    name: str
    table: str
    order: str
    run: sql.Composable = sql.SQL("x.run_id")
    join: sql.Composable = sql.SQL("")
    columns: sql.Composable = sql.SQL("to_jsonb(x)::text")
    write: Callable[..., str] = str

    def statement(self) -> sql.Composed:
        """Return the SELECT: the run's id first, then what `write` takes."""
        return sql.SQL(
            "SELECT {run}, {columns} FROM {table} x {join} WHERE {run} = ANY(%(ids)s)"
            " ORDER BY {run}, {order}"
        ).format(
            run=self.run,
            columns=self.columns,
            table=sql.Identifier(self.table),
            join=self.join,
            order=sql.Identifier("x", self.order),
        )


class _Rows:
    """The rows of one part, handed out run by run, in the order of the runs."""

    def __init__(self, stack: ExitStack, part: _Part, run_ids: list[UUID]) -> None:
        name = f"archive_{part.name}"
        cursor = stack.enter_context(psycopg.ServerCursor(connection.connection, name))
        cursor.itersize = _FETCH
        cursor.execute(part.statement(), {"ids": run_ids})
        self._write = part.write
        self._groups = groupby(cursor, key=lambda row: row[0])
        self._next = next(self._groups, None)

    def of(self, run_id: UUID) -> Iterator[str]:
        """Yield the run's rows as JSON texts."""
        if self._next is not None and self._next[0] == run_id:
            yield from (self._write(*row[1:]) for row in self._next[1])
            self._next = next(self._groups, None)


def _task(row: str, *values: Any) -> str:
    """Write a task with its values wherever they are kept: (inline text, reference) for each."""
    kept = zip(BY_REFERENCE, values[::2], values[1::2], strict=True)
    shown = (f'"{name}": {(_payload(ref) if ref else text) or "null"}' for name, text, ref in kept)
    return f"{{{', '.join(shown)}, {row.removeprefix('{')}"


def _payload(reference: UUID) -> str:
    rows = query("SELECT content FROM tasks_payload WHERE id = %(id)s", {"id": reference})
    return zlib.decompress(rows[0]["content"]).decode() if rows else ""


#: Columns of a task whose value may be a Payload instead, which `<name>_ref` then names.
BY_REFERENCE = tuple(
    field.attname.removesuffix("_ref")
    for field in Task._meta.fields  # noqa: SLF001 - Django's documented name
    if field.attname.endswith("_ref")
)

_RUNS = _Part("run", "tasks_run", "id", run=sql.SQL("x.id"))
_TASKS = _Part(
    "tasks",
    "tasks_task",
    "number",
    columns=sql.SQL(", ").join(
        [
            sql.SQL("(to_jsonb(x) - {}::text[])::text").format(list(BY_REFERENCE)),
            *(
                sql.SQL("{}::text, {}").format(
                    sql.Identifier("x", name), sql.Identifier("x", f"{name}_ref")
                )
                for name in BY_REFERENCE
            ),
        ]
    ),
    write=_task,
)


def _parts() -> Iterator[_Part]:
    """Yield all that belongs to a run: what is deleted with it, and its events."""
    yield _TASKS
    yield _Part("events", Event._meta.db_table, "id")  # noqa: SLF001 - Django's documented name
    for name, table, column, order in _below(Run):
        yield _Part(name, table, order, run=sql.Identifier("x", column))
    for name, table, column, order in _below(Task):
        join = sql.SQL("JOIN tasks_task t ON t.id = {task}").format(
            task=sql.Identifier("x", column)
        )
        yield _Part(name, table, order, run=sql.SQL("t.run_id"), join=join)


def _below(model: type[models.Model]) -> Iterator[tuple[str, str, str, str]]:
    """Yield (name, table, column, key) of what is deleted together with a row of the model."""
    for link in model._meta.related_objects:  # noqa: SLF001 - Django's documented name
        child: Any = link.related_model
        if link.on_delete is models.CASCADE and child not in (Run, Task):
            name, column = str(link.get_accessor_name()), str(link.field.column)
            meta = child._meta  # noqa: SLF001 - Django's documented name
            yield name, meta.db_table, column, str(meta.pk.column)
