"""API keys: 256 random bits, shown once; only a prefix and a SHA-256 digest are stored."""

from __future__ import annotations

import hashlib
import hmac
import secrets
import string
from collections.abc import Iterable
from datetime import datetime, timedelta
from uuid import UUID

from django.db.models import Q
from django.utils import timezone

from opscore.errors import InvalidError, NotFoundError, Problem, UnauthorizedError
from opscore.models import NAME_LENGTH, ApiKey, Project

#: read: GET; write: everything that users do; agent: the executor protocol; admin: all of it,
#: and to start and stop agents.
SCOPES = ("read", "write", "agent", "admin")
#: One write a minute for each key that is in use, not one for each request.
_USED_EVERY = timedelta(minutes=1)
_ALPHABET = string.ascii_lowercase + string.digits
_NO_DIGEST = "0" * 64


def create(
    project: Project, name: str, scopes: Iterable[str], *, expires_at: datetime | None = None
) -> tuple[ApiKey, str]:
    """Store a new key and return it with its text, which cannot be read again.

    Raises InvalidError when the name is too long, a scope is unknown or none is given.
    """
    if not 0 < len(name) <= NAME_LENGTH:
        raise InvalidError(f"The name of a key has 1 to {NAME_LENGTH} characters.")
    key = ApiKey(project=project, name=name, scopes=_checked(scopes), expires_at=expires_at)
    text = give_secret(key)
    key.save()
    return key, text


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
    key = ApiKey.objects.select_related("project").filter(prefix=prefix).first()
    # An unknown prefix costs the same comparison as a known one.
    matches = hmac.compare_digest(key.digest if key else _NO_DIGEST, digest_of(text))
    if key is None or not matches or not is_usable(key):
        raise UnauthorizedError("This API key is not valid: unknown, revoked or expired.")
    _note_use(key)
    return key


def revoke(project: Project, ref: str) -> list[ApiKey]:
    """Revoke the keys with this prefix or name at once; doing it twice changes nothing.

    Raises NotFoundError when there is none.
    """
    keys = list(ApiKey.objects.filter(Q(prefix=ref) | Q(name=ref), project=project))
    if not keys:
        raise NotFoundError(f"There is no API key with the prefix or name {ref!r}.")
    ApiKey.objects.filter(pk__in=[key.pk for key in keys], revoked_at=None).update(
        revoked_at=timezone.now()
    )
    return keys


def allows(key: ApiKey, scope: str) -> bool:
    """Tell whether the key may do what needs `scope`; admin may do everything."""
    return scope in key.scopes or "admin" in key.scopes


def is_usable(key: ApiKey) -> bool:
    """Tell whether the key is neither revoked nor expired."""
    expired = key.expires_at is not None and key.expires_at <= timezone.now()
    return key.revoked_at is None and not expired


def still_usable(key_ids: Iterable[int]) -> set[int]:
    """Return those of the keys that are neither revoked nor expired."""
    now = timezone.now()
    found = ApiKey.objects.filter(pk__in=set(key_ids), revoked_at=None)
    return set(found.exclude(expires_at__lte=now).values_list("pk", flat=True))


def digest_of(text: str) -> str:
    """Return the SHA-256 of a key's text; 256 random bits need no slow hash."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


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
