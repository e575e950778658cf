"""The database's side of sending: which deliveries are due, and what became of each."""

from __future__ import annotations

import json
import time
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta
from random import SystemRandom
from typing import Any
from uuid import UUID

from django.db import transaction
from django.db.models import F

from opscore import vault
from opscore.database import database_now, query
from opscore.sealing import unseal
from webhooks import hooks, signing
from webhooks.models import Delivery, Try, Webhook

#: Deliveries that one webhook is sent at once: a slow one holds up no other.
AT_ONCE = 4
#: After so many seconds whoever sends a delivery counts as dead. Longer than a request may take.
LEASE_S = 60.0
#: Seconds from each failed try to the next; after the last one the delivery has failed.
DELAYS_S = (5.0, 300.0, 1800.0, 7200.0, 18_000.0, 36_000.0, 36_000.0)
TRIES = len(DELAYS_S) + 1
#: The part of a delay that chance adds: what failed together must not come back together.
JITTER = 0.2
#: The longest that a receiver may ask to be left alone (Retry-After).
MAX_HOLD_S = 3600.0
#: A webhook that has only failed for so long, TRIES times at least, is disabled.
GIVE_UP_AFTER = timedelta(days=1)
_random = SystemRandom()
_COUNTED = (
    "last_at",
    "last_status",
    "last_error",
    "failures",
    "failing_since",
    "enabled",
    "disabled_reason",
)


@dataclass(frozen=True)
class Letter:
    """A delivery that this process has taken to send it."""

    id: int
    webhook_id: UUID
    project_id: int
    url: str
    payload: Any
    tries: int
    lease: datetime
    sealed: bytes
    old_sealed: bytes | None
    """The secret before, while it still signs."""


@dataclass(frozen=True)
class Answer:
    """What came back."""

    status: int | None = None
    error: str = ""
    """Why it does not count as delivered."""
    excerpt: str = ""
    duration_ms: int = 0
    hold_s: float = 0.0
    """How long the receiver wants to be left alone."""


def claim(limit: int) -> list[Letter]:
    """Take deliveries that are due; any number of processes share them."""
    given = {"limit": limit, "at_once": AT_ONCE, "lease_s": LEASE_S}
    return [Letter(**row) for row in query(_CLAIM, given)]


def put_back(ids: Collection[int]) -> None:
    """Give back what was taken and not sent to its end; it is due at once."""
    mine = Delivery.objects.filter(pk__in=ids, status="sending")
    mine.update(status="pending", due_at=database_now())


def message_id(webhook_id: UUID, delivery_id: int) -> str:
    """Return the id of a delivery for its receiver: the same for every try and redelivery."""
    return f"msg_{webhook_id.hex}_{delivery_id}"


def body_of(project_id: int, payload: Any) -> dict[str, Any]:
    """Return what is sent: without the values of the project's secrets."""
    masked: dict[str, Any] = vault.redactor(project_id).data(payload)
    return {name: masked[name] for name in ("type", "timestamp", "data")}


def written(letter: Letter) -> tuple[bytes, dict[str, str]]:
    """Return the body of a request and its headers. Raises SealedError."""
    body = json.dumps(
        body_of(letter.project_id, letter.payload), ensure_ascii=False, separators=(",", ":")
    ).encode()
    sealed = [one for one in (letter.sealed, letter.old_sealed) if one is not None]
    name = message_id(letter.webhook_id, letter.id)
    signed = signing.headers([unseal(one) for one in sealed], name, int(time.time()), body)
    return body, {"Content-Type": "application/json", "User-Agent": "ops-core", **signed}


def record(letter: Letter, answer: Answer) -> None:
    """Write what became of a try, unless it counts as lost meanwhile."""
    mask = vault.redactor(letter.project_id).text
    with transaction.atomic():
        # The webhook first, as `claim` does.
        hook = Webhook.objects.select_for_update(no_key=True).filter(pk=letter.webhook_id).first()
        mine = Delivery.objects.filter(pk=letter.id, status="sending", due_at=letter.lease)
        if hook is None or not mine.update(**_outcome(letter, answer)):
            return
        Try.objects.create(
            delivery_id=letter.id,
            status=answer.status,
            error=mask(answer.error)[:300],
            answer=mask(answer.excerpt),
            duration_ms=answer.duration_ms,
        )
        _tell_hook(hook, answer, mask(answer.error)[:300])


def _outcome(letter: Letter, answer: Answer) -> dict[str, Any]:
    now = database_now()
    fields: dict[str, Any] = {"tries": F("tries") + 1}
    if not answer.error:
        return {**fields, "status": "delivered", "due_at": None, "ended_at": now}
    if letter.tries + 1 >= TRIES or _is_gone(answer):
        return {**fields, "status": "failed", "due_at": None, "ended_at": now}
    delay_s = DELAYS_S[letter.tries] * (1 + _random.uniform(0, JITTER))
    delay_s = max(delay_s, min(answer.hold_s, MAX_HOLD_S))
    return {**fields, "status": "pending", "due_at": now + timedelta(seconds=delay_s)}


def _tell_hook(hook: Webhook, answer: Answer, error: str) -> None:
    now = database_now()
    hook.last_at, hook.last_status, hook.last_error = now, answer.status, error
    if not error:
        hook.failures, hook.failing_since = 0, None
    else:
        hook.failures += 1
        hook.failing_since = hook.failing_since or now
    reason = _reason_to_disable(hook, answer) if error and hook.enabled else ""
    if reason:
        hook.enabled, hook.disabled_reason = False, reason
    hook.save(update_fields=_COUNTED)
    if reason:
        hooks.note(hook, "disabled", reason=reason)


def _reason_to_disable(hook: Webhook, answer: Answer) -> str:
    if _is_gone(answer):
        return "It answered 410 Gone."
    since = hook.failing_since
    if since is None or hook.failures < TRIES or since > database_now() - GIVE_UP_AFTER:
        return ""
    return f"All {hook.failures} tries since {since:%F %T} UTC failed; last: {hook.last_error}"[
        :300
    ]


def _is_gone(answer: Answer) -> bool:
    return answer.status == 410


# Whoever is sent much gets no more than AT_ONCE; `now()` is the same in the whole statement.
_CLAIM = """
WITH hook AS (
  SELECT w.id FROM webhooks_webhook w
   WHERE w.enabled
     AND EXISTS (SELECT FROM webhooks_delivery d
                  WHERE d.webhook_id = w.id AND d.status IN ('pending', 'sending')
                    AND d.due_at <= now())
     FOR NO KEY UPDATE OF w SKIP LOCKED),
due AS (
  SELECT d.id FROM hook w, LATERAL (
    SELECT d.id FROM webhooks_delivery d
     WHERE d.webhook_id = w.id AND d.status IN ('pending', 'sending') AND d.due_at <= now()
     ORDER BY d.due_at
     LIMIT greatest(0, %(at_once)s - (
           SELECT count(*) FROM webhooks_delivery s
            WHERE s.webhook_id = w.id AND s.status = 'sending' AND s.due_at > now()))) d
   LIMIT %(limit)s)
UPDATE webhooks_delivery d
   SET status = 'sending', due_at = now() + make_interval(secs => %(lease_s)s)
  FROM due, webhooks_webhook w
 WHERE d.id = due.id AND w.id = d.webhook_id
   AND d.status IN ('pending', 'sending') AND d.due_at <= now()
RETURNING d.id, d.webhook_id, w.project_id, w.url, d.payload::json, d.tries, d.due_at AS lease,
          w.sealed, CASE WHEN w.old_until > now() THEN w.old_sealed END AS old_sealed
"""
