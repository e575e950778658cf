"""API keys: 256 random bits, shown once; only a prefix and a SHA-256 digest are stored."""

from __future__ import annotations

import hashlib
import hmac
import secrets
import string
from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.db import transaction
from django.db.models import Q, QuerySet
from django.utils import timezone

from opscore import origin
from opscore.database import query_first
from opscore.errors import (
    ConflictError,
    InvalidError,
    NotFoundError,
    Problem,
    UnauthorizedError,
)
from opscore.loading import columns, loaded
from opscore.models import NAME_LENGTH, ApiKey, Project

#: read: GET; write: everything that users do; agent: the executor protocol; admin: all of it,
#: and to start and stop agents.
SCOPES = ("read", "write", "agent", "admin")
STATES = ("usable", "expired", "revoked")
NOT_VALID = "This API key is not valid: unknown, revoked or expired."
#: One write a minute for each key that is in use, not one for each request.
_USED_EVERY = timedelta(minutes=1)
_ALPHABET = string.ascii_lowercase + string.digits
_NO_DIGEST = "0" * 64
#: Digests of keys that this process has accepted, and how many it remembers.
_good: set[str] = set()
_GOOD = 10_000
_BY_PREFIX = f"""
SELECT {columns(ApiKey, Project)}
  FROM opscore_apikey JOIN opscore_project ON opscore_project.id = project_id
 WHERE prefix = %(prefix)s"""  # noqa: S608 - names of columns


def create(
    project: Project,
    name: str,
    scopes: Iterable[str],
    *,
    expires_at: datetime | None = None,
    agent_id: UUID | None = None,
) -> tuple[ApiKey, str]:
    """Store a new key and return it with its text, which cannot be read again.

    One with `agent_id` may act as that agent only, so `agent` is its only scope.
    Raises InvalidError when the name is too long, a scope is unknown or none is given.
    """
    if not 0 < len(name) <= NAME_LENGTH:
        raise InvalidError(f"The name of a key has 1 to {NAME_LENGTH} characters.")
    key = ApiKey(project=project, name=name, scopes=_checked(scopes), expires_at=expires_at)
    key.agent_id = agent_id
    check_binding(key)
    text = give_secret(key)
    key.save()
    _tell("created", key)
    return key, text


def check_binding(key: ApiKey) -> None:
    """Raise InvalidError where a key of one agent has more than the scope `agent`."""
    if key.agent_id is not None and list(key.scopes) != ["agent"]:
        message = "The key of one agent has the scope agent, and no other."
        raise InvalidError(
            message, [Problem(f"must be agent, not {', '.join(key.scopes)}", "scopes")]
        )


def rotate(
    key: ApiKey, *, overlap: timedelta, expires_at: datetime | None = None
) -> tuple[ApiKey, str]:
    """Store a successor of the key and return it with its text; the key itself expires soon.

    Both work during `overlap`. The successor lives as long as the key was made for, where
    `expires_at` does not say otherwise. Raises ConflictError when the key works no more.
    """
    with transaction.atomic():
        old = ApiKey.objects.select_for_update().get(pk=key.pk)
        if not is_usable(old):
            raise ConflictError(f"The key {old.prefix} works no more; make a new one.")
        now = timezone.now()
        if expires_at is None and old.expires_at is not None:
            expires_at = now + (old.expires_at - old.created_at)
        ends = [at for at in (old.expires_at, now + overlap) if at is not None]
        ApiKey.objects.filter(pk=old.pk).update(expires_at=min(ends))
        _tell("rotated", old, expires_at=[old.expires_at, min(ends)])
        return create(
            old.project, old.name, old.scopes, expires_at=expires_at, agent_id=old.agent_id
        )


def find(project: Project, ref: str) -> ApiKey:
    """Return the key with this prefix, else the newest of this name, usable ones first.

    Keys of sessions are not found: they come and go with them. Raises NotFoundError.
    """
    found = list(_named(project, ref).order_by("-id"))
    if not found:
        raise _missing(ref)
    return min(found, key=lambda key: (key.prefix != ref, not is_usable(key)))


def create_for_session(project: Project, name: str, session_id: UUID) -> str:
    """Store a key that may act for this one agent session only; return its text."""
    key = ApiKey(project=project, name=name, scopes=["agent"], session_id=session_id)
    text = give_secret(key)
    key.save()
    return text


def drop_of_sessions(session_ids: Iterable[UUID]) -> None:
    """Delete the keys of sessions that ended; whoever still has one is nobody from now on."""
    ApiKey.objects.filter(session_id__in=list(session_ids)).delete()


def give_secret(key: ApiKey) -> str:
    """Draw the secret of a key that is not saved yet, and return the key's text."""
    key.prefix = "".join(secrets.choice(_ALPHABET) for _ in range(10))
    text = f"ok_{key.prefix}_{secrets.token_urlsafe(32)}"
    key.digest = digest_of(text)
    return text


def verify(text: str) -> ApiKey:
    """Return the key whose text this is; its project is loaded.

    Raises UnauthorizedError when it is unknown, revoked or expired, and does not say which.
    """
    parts = text.split("_", 2)
    prefix = parts[1] if len(parts) == 3 and parts[1].isalnum() else ""
    key = _stored(prefix)
    # An unknown prefix costs the same comparison as a known one.
    matches = hmac.compare_digest(key.digest if key else _NO_DIGEST, digest_of(text))
    if key is None or not matches or not is_usable(key):
        raise UnauthorizedError(NOT_VALID)
    _note_use(key)
    if len(_good) >= _GOOD:
        _good.clear()
    _good.add(key.digest)
    return key


def was_good(text: str) -> bool:
    """Tell whether this process has accepted the key lately; it may be revoked meanwhile."""
    return digest_of(text) in _good


def _stored(prefix: str) -> ApiKey | None:
    rows = query_first(_BY_PREFIX, {"prefix": prefix})
    if not rows:
        return None
    key = loaded(ApiKey, rows[0])
    key.project = loaded(Project, rows[0])
    return key


def revoke(project: Project, ref: str) -> list[ApiKey]:
    """Revoke the keys with this prefix or name at once; doing it twice changes nothing.

    Raises NotFoundError when there is none.
    """
    keys = list(_named(project, ref))
    if not keys:
        raise _missing(ref)
    ApiKey.objects.filter(pk__in=[key.pk for key in keys], revoked_at=None).update(
        revoked_at=timezone.now()
    )
    for key in keys:
        _tell("revoked", key, was=state_of(key))
    return keys


def _named(project: Project, ref: str) -> QuerySet[ApiKey]:
    mine = ApiKey.objects.filter(project=project, session_id=None)
    return mine.filter(Q(prefix=ref) | Q(name=ref))


def _missing(ref: str) -> NotFoundError:
    return NotFoundError(f"There is no API key with the prefix or name {ref!r}.")


def allows(key: ApiKey, scope: str) -> bool:
    """Tell whether the key may do what needs `scope`; admin may do everything."""
    return scope in key.scopes or "admin" in key.scopes


def is_usable(key: ApiKey) -> bool:
    """Tell whether the key is neither revoked nor expired."""
    return state_of(key) == "usable"


def state_of(key: ApiKey) -> str:
    """Return one of STATES."""
    if key.revoked_at is not None:
        return "revoked"
    expired = key.expires_at is not None and key.expires_at <= timezone.now()
    return "expired" if expired else "usable"


def still_usable(key_ids: Iterable[int]) -> set[int]:
    """Return those of the keys that are neither revoked nor expired."""
    now = timezone.now()
    found = ApiKey.objects.filter(pk__in=set(key_ids), revoked_at=None)
    return set(found.exclude(expires_at__lte=now).values_list("pk", flat=True))


def digest_of(text: str) -> str:
    """Return the SHA-256 of a key's text; 256 random bits need no slow hash."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _tell(verb: str, key: ApiKey, **more: Any) -> None:
    """Tell the audit log's row of this request which key it was."""
    agent = {"agent": key.agent_id} if key.agent_id else {}
    said = {"key": key.prefix, "name": key.name, "scopes": key.scopes}
    origin.current().changes.append({verb: said | agent | more})


def _checked(scopes: Iterable[str]) -> list[str]:
    wanted = sorted(set(scopes))
    unknown = [scope for scope in wanted if scope not in SCOPES]
    if unknown or not wanted:
        raise InvalidError(
            f"Scopes are one or more of {', '.join(SCOPES)}.",
            [Problem(f"unknown scope {scope!r}", "scopes") for scope in unknown],
        )
    return wanted


def _note_use(key: ApiKey) -> None:
    now = timezone.now()
    if key.last_used_at is None or now - key.last_used_at > _USED_EVERY:
        ApiKey.objects.filter(pk=key.pk).update(last_used_at=now)
