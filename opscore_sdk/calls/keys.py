"""API keys and the audit log; each row is a dict as the API shows it. They need the scope `admin`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from opscore_sdk.asking import Talk, ask, part, rows


def keys(*, limit: int = 200) -> Talk[list[dict[str, Any]]]:
    """Return the keys of the project, never their texts."""
    return (yield from rows("/keys", dict, limit, {}))


def key(ref: str) -> Talk[dict[str, Any]]:
    """Return a key by its prefix or name."""
    answer: dict[str, Any] = yield from ask("GET", f"/keys/{part(ref)}")
    return answer


def create_key(
    name: str,
    *,
    scopes: Sequence[str] = (),
    agent: str | None = None,
    expires_at: str | None = None,
) -> Talk[dict[str, Any]]:
    """Make a key; its text is in `key`, only now. With `agent` it may act as that agent only."""
    body: dict[str, Any] = {"name": name}
    body |= {"scopes": list(scopes)} if scopes else {}
    body |= {"agent": agent} if agent else {}
    body |= {"expires_at": expires_at} if expires_at else {}
    answer: dict[str, Any] = yield from ask("POST", "/keys", body=body, repeatable=False)
    return answer


def rotate_key(ref: str, *, overlap_s: float = 3600) -> Talk[dict[str, Any]]:
    """Make a key that replaces another, which works for `overlap_s` seconds more."""
    body = {"overlap_s": overlap_s}
    path = f"/keys/{part(ref)}/rotate"
    answer: dict[str, Any] = yield from ask("POST", path, body=body, repeatable=False)
    return answer


def revoke_key(ref: str) -> Talk[None]:
    """Make a key useless at once."""
    yield from ask("DELETE", f"/keys/{part(ref)}")


def audit(*, limit: int = 50) -> Talk[list[dict[str, Any]]]:
    """Return who changed what from where, newest first."""
    return (yield from rows("/audit", dict, limit, {}))


def verify_audit() -> Talk[dict[str, Any]]:
    """Follow the chain of the audit log: `ok`, and the first row that is `broken`."""
    answer: dict[str, Any] = yield from ask("GET", "/audit/verify")
    return answer
