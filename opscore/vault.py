"""Secrets of projects: put in once, read by executors only, masked wherever they would be kept."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterable
from contextlib import suppress
from datetime import timedelta
from typing import Any

from django.apps import apps
from django.db import transaction
from django.db.models.functions import Now

from opscore.database import Row, database_now, query
from opscore.errors import InvalidError, NotFoundError, Problem
from opscore.logs import get_logger
from opscore.models import Event, OldSecret, Project, Secret
from opscore.redaction import Redactor
from opscore.sealing import SealedError, resealed, seal, unseal

log = get_logger(__name__)

#: Fewer characters would mask ordinary words; more is a file, not a secret.
SHORTEST, LONGEST = 8, 32 * 1024
MAX_SECRETS = 200
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")
#: How long a value is masked that was changed or deleted: whatever got it may still tell it.
KEPT = timedelta(days=1)
#: Values of one project that a process masks: also those that were changed meanwhile.
_REMEMBERED = 1000
#: A worker masks what its own handlers have read in any case; of other changes it hears this late.
ASK_EVERY_S = 1.0

_READ = """
SELECT name, sealed FROM opscore_secret
 WHERE project_id = %(project)s AND (%(names)s::text[] IS NULL OR name = ANY(%(names)s::text[]))"""
_READ_OLD = """
SELECT '(an old one)' AS name, sealed FROM opscore_oldsecret
 WHERE project_id = %(project)s ORDER BY id DESC LIMIT %(limit)s"""
#: Changes with every change of a secret, and costs less than to read them.
_STATE = """
SELECT count(*) AS count, max(changed_at) AS changed_at FROM opscore_secret
 WHERE project_id = %(project)s"""
_RETIRE = """
INSERT INTO opscore_oldsecret (project_id, sealed)
SELECT project_id, sealed FROM opscore_secret
 WHERE project_id = %(project)s AND name = %(name)s"""


def put(project: Project, name: str, value: str, actor: str = "") -> tuple[Secret, bool]:
    """Store a secret or change it; return it and whether it is new. Raises InvalidError."""
    check(name, value)
    with transaction.atomic():
        # Two at once would both find room for the last one.
        Project.objects.select_for_update().get(pk=project.pk)
        others = Secret.objects.filter(project=project).exclude(name=name)
        if others.count() >= MAX_SECRETS:
            raise InvalidError(f"A project has at most {MAX_SECRETS} secrets.")
        query(_RETIRE, {"project": project.pk, "name": name})
        secret, made = Secret.objects.update_or_create(
            project=project, name=name, defaults={"sealed": seal(value), "changed_at": Now()}
        )
        _note(project, "secret.created" if made else "secret.changed", name, actor)
    _remember(project.pk, [value])
    secret.refresh_from_db()
    return secret, made


def drop(project: Project, name: str, actor: str = "") -> None:
    """Delete a secret; tasks that read it fail from now on. Raises NotFoundError."""
    find(project, name)
    with transaction.atomic():
        Project.objects.select_for_update().get(pk=project.pk)
        query(_RETIRE, {"project": project.pk, "name": name})
        Secret.objects.filter(project=project, name=name).delete()
        _note(project, "secret.deleted", name, actor)


def find(project: Project, name: str) -> Secret:
    """Return a secret without its value. Raises NotFoundError."""
    found = Secret.objects.filter(project=project, name=name).defer("sealed").first()
    if found is None:
        raise NotFoundError(f"There is no secret {name!r} in the project {project.slug!r}.")
    return found


def read(project_id: int, names: Iterable[str]) -> dict[str, str]:
    """Return the values of those secrets that there are, for an executor.

    This process masks them from now on. Raises SealedError.
    """
    wanted = sorted(set(names))
    rows = query(_READ, {"project": project_id, "names": wanted}) if wanted else []
    values = {row["name"]: unseal(row["sealed"]) for row in rows}
    _remember(project_id, values.values())
    return values


def redactor(project_id: int) -> Redactor:
    """Return what masks the project's secrets, and the values that they had in the last day.

    What this process has read itself is masked from then on, what others have within ASK_EVERY_S.
    What it has no key for is not masked: it could give it to nobody either.
    """
    memory = _memory(project_id)
    now = time.monotonic()
    if now - memory.asked_at < _Asking.every_s:
        return memory.redactor
    [state] = query(_STATE, {"project": project_id})
    if state != memory.state:
        rows = query(_READ_OLD, {"project": project_id, "limit": _REMEMBERED})
        rows += query(_READ, {"project": project_id, "names": None})
        memory.add(filter(None, map(_opened, rows)))
        memory.state = state
    memory.asked_at = now
    return memory.redactor


def ask_each_time() -> None:
    """Have this process ask for each text: it writes what executors elsewhere report."""
    _Asking.every_s = 0.0


def reseal() -> int:
    """Encrypt all that is sealed with the first key; return how much. Raises SealedError.

    A model says by `sealed_fields` which of its columns are.
    """
    with transaction.atomic():
        models = [model for model in apps.get_models() if hasattr(model, "sealed_fields")]
        count = sum(map(_resealed, models))
        old = list(OldSecret.objects.select_for_update())
        for value in old:
            # What nobody can read needs no mask, and is gone tomorrow.
            with suppress(SealedError):
                value.sealed = resealed(bytes(value.sealed))
        OldSecret.objects.bulk_update(old, ["sealed"], batch_size=100)
    return count


def _resealed(model: Any) -> int:
    rows = list(model.objects.select_for_update())
    for row in rows:
        for name in model.sealed_fields:
            if (sealed := getattr(row, name)) is not None:
                setattr(row, name, resealed(bytes(sealed)))
    model.objects.bulk_update(rows, model.sealed_fields, batch_size=100)
    return len(rows)


def forget_old() -> None:
    """Delete the values that no secret has had for a day."""
    OldSecret.objects.filter(replaced_at__lt=database_now() - KEPT).delete()


def forget() -> None:
    """Empty this process's memory of values."""
    _memories.clear()


def _opened(row: Row) -> str:
    try:
        return unseal(row["sealed"])
    except SealedError as error:
        log.warning("secret.not_readable", name=row["name"], error=str(error))
        return ""


class _Asking:
    """How often this process asks whether secrets have changed."""

    every_s = ASK_EVERY_S


class _Memory:
    """The values of one project that this process masks."""

    def __init__(self) -> None:
        self.state: Row = {}
        self.asked_at = float("-inf")
        self.redactor = Redactor()
        self._values: tuple[str, ...] = ()
        self._lock = threading.Lock()

    def add(self, values: Iterable[str]) -> None:
        with self._lock:
            new = [value for value in values if value not in self._values]
            if new:
                self._values = (*self._values, *new)[-_REMEMBERED:]
                self.redactor = Redactor(self._values)


_memories: dict[int, _Memory] = {}


def _memory(project_id: int) -> _Memory:
    return _memories.setdefault(project_id, _Memory())


def _remember(project_id: int, values: Iterable[str]) -> None:
    _memory(project_id).add(values)


def check(name: str, value: str) -> None:
    """Raise InvalidError with all that is wrong with a secret."""
    problems = []
    if not _NAME.fullmatch(name):
        message = "up to 64 letters, digits and `_` are expected, no digit in front"
        problems.append(Problem(message, "name"))
    if not SHORTEST <= len(value) <= LONGEST or "\0" in value:
        problems.append(Problem(f"{SHORTEST} to {LONGEST} characters are expected", "value"))
    elif len(set(value)) == 1:
        problems.append(Problem("the same character again and again is no secret", "value"))
    if problems:
        raise InvalidError("This cannot be a secret.", problems)


def _note(project: Project, kind: str, name: str, actor: str) -> None:
    Event.objects.create(project=project, kind=kind, actor=actor, data={"name": name})
