"""Secrets: their values go in and never come out; each is a dict as the API shows it."""

from __future__ import annotations

from typing import Any

from opscore_sdk.asking import Talk, ask, part, rows


def secrets(*, limit: int = 200) -> Talk[list[dict[str, Any]]]:
    """Return the secrets of the project: name, created_at, changed_at."""
    return (yield from rows("/secrets", dict, limit, {}))


def secret(name: str) -> Talk[dict[str, Any]]:
    """Return one of them."""
    answer: dict[str, Any] = yield from ask("GET", f"/secrets/{part(name)}")
    return answer


def set_secret(name: str, value: str) -> Talk[dict[str, Any]]:
    """Store a secret, or change it for the tasks that are taken from now on."""
    body = {"value": value}
    answer: dict[str, Any] = yield from ask("PUT", f"/secrets/{part(name)}", body=body)
    return answer


def delete_secret(name: str) -> Talk[None]:
    """Delete a secret; tasks that read it fail from now on."""
    yield from ask("DELETE", f"/secrets/{part(name)}")
