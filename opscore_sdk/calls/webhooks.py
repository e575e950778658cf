"""Webhooks and the log of their deliveries; each row is a dict as the API shows it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from opscore_sdk.asking import Talk, ask, part, rows


def webhooks(*, limit: int = 50, **filters: str) -> Talk[list[dict[str, Any]]]:
    """Return the webhooks of the project, newest first; filters: name, enabled."""
    return (yield from rows("/webhooks", dict, limit, filters))


def webhook(ref: str) -> Talk[dict[str, Any]]:
    """Return a webhook by id or name, never its secret."""
    answer: dict[str, Any] = yield from ask("GET", _path(ref))
    return answer


def create_webhook(
    name: str, url: str, *, events: Sequence[str] = ("*",), **options: Any
) -> Talk[dict[str, Any]]:
    """Have an address be told of events; what it is signed with is in `secret`, only now.

    Options: workflow, enabled.
    """
    body = {"name": name, "url": url, "events": list(events), **options}
    answer: dict[str, Any] = yield from ask("POST", "/webhooks", body=body, repeatable=False)
    return answer


def change_webhook(ref: str, **fields: Any) -> Talk[dict[str, Any]]:
    """Change what is named: name, url, events, workflow, enabled; the rest stays."""
    answer: dict[str, Any] = yield from ask("PATCH", _path(ref), body=fields)
    return answer


def delete_webhook(ref: str) -> Talk[None]:
    """Delete a webhook with the log of its deliveries."""
    yield from ask("DELETE", _path(ref))


def rotate_webhook(ref: str, *, overlap_s: float = 24 * 3600) -> Talk[dict[str, Any]]:
    """Draw another `secret`, shown only now; the old one signs too for `overlap_s` seconds."""
    body = {"overlap_s": overlap_s}
    path = _path(ref, "/rotate")
    answer: dict[str, Any] = yield from ask("POST", path, body=body, repeatable=False)
    return answer


def test_webhook(ref: str) -> Talk[dict[str, Any]]:
    """Send a webhook the event `webhook.test`; return the delivery."""
    answer: dict[str, Any] = yield from ask("POST", _path(ref, "/test"))
    return answer


def deliveries(ref: str, *, limit: int = 50, **filters: str) -> Talk[list[dict[str, Any]]]:
    """Return what a webhook was told, newest first; filters: status, event."""
    return (yield from rows(_path(ref, "/deliveries"), dict, limit, filters))


def delivery(ref: str, delivery_id: int | str) -> Talk[dict[str, Any]]:
    """Return a delivery with its body and every try."""
    path = _path(ref, f"/deliveries/{part(str(delivery_id))}")
    answer: dict[str, Any] = yield from ask("GET", path)
    return answer


def redeliver(ref: str, delivery_id: int | str) -> Talk[dict[str, Any]]:
    """Send a delivery again, under the same `webhook-id`."""
    path = _path(ref, f"/deliveries/{part(str(delivery_id))}/redeliver")
    answer: dict[str, Any] = yield from ask("POST", path)
    return answer


def _path(ref: str, rest: str = "") -> str:
    return f"/webhooks/{part(ref)}{rest}"
