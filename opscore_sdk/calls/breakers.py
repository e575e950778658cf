"""Circuit breakers of agents and resources; each is a dict as the API shows it."""

from __future__ import annotations

from typing import Any

from opscore_sdk.asking import Talk, ask, part, rows


def breakers(*, limit: int = 50) -> Talk[list[dict[str, Any]]]:
    """Return the breakers that ever counted a failure, were opened or configured."""
    return (yield from rows("/breakers", dict, limit, {}))


def breaker(kind: str, name: str) -> Talk[dict[str, Any]]:
    """Return one breaker; `kind` is agent or resource."""
    answer: dict[str, Any] = yield from ask("GET", _place(kind, name))
    return answer


def open_breaker(
    kind: str, name: str, *, reason: str = "", for_s: float | None = None
) -> Talk[dict[str, Any]]:
    """Open a breaker until it is closed by hand, or for `for_s` seconds."""
    body: dict[str, Any] = {"reason": reason, "for_s": for_s}
    answer: dict[str, Any] = yield from ask("POST", f"{_place(kind, name)}/open", body=body)
    return answer


def close_breaker(kind: str, name: str) -> Talk[dict[str, Any]]:
    """Close a breaker and forget its failures; harmless when it is closed."""
    answer: dict[str, Any] = yield from ask("POST", f"{_place(kind, name)}/close")
    return answer


def configure_breaker(kind: str, name: str, **rule: float) -> Talk[dict[str, Any]]:
    """Change when it opens: threshold, min_calls, window_s, cooldown_s; the others stay."""
    answer: dict[str, Any] = yield from ask("PUT", _place(kind, name), body=rule)
    return answer


def _place(kind: str, name: str) -> str:
    return f"/breakers/{part(kind)}/{part(name)}"
