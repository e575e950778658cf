"""The platform as a whole: what files say it should be, and how it is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from opscore_sdk.asking import Talk, ask


def apply(
    files: Mapping[str, str], *, dry_run: bool = False, idempotency_key: str | None = None
) -> Talk[list[dict[str, Any]]]:
    """Make the project what some texts say, all or nothing; return what became of each thing.

    `files` are texts by their names; `.json` is JSON, everything else YAML. `dry_run` only says
    what would change. InvalidError lists every problem with its `file` and `line`.
    """
    sent = [{"path": name, "text": text} for name, text in files.items()]
    body = {"files": sent, "dry_run": dry_run}
    answer = yield from ask("POST", "/apply", body=body, idempotency_key=idempotency_key)
    return list(answer["changes"])


def diagnostics() -> Talk[dict[str, Any]]:
    """Return how every part of the platform is, and what to do about it; for keys of admins."""
    answer: dict[str, Any] = yield from ask("GET", "/diagnostics")
    return answer


def ready() -> Talk[dict[str, Any]]:
    """Return what `health` does; ServerError while the database or the broker is away."""
    answer: dict[str, Any] = yield from ask("GET", "/ready", repeatable=False)
    return answer
