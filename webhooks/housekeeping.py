"""Deletes old deliveries, in bounded batches."""

from __future__ import annotations

from opscore.config import load_config
from opscore.database import query
from tasks import steps

#: Deliveries that one step deletes at once.
BATCH = 1000

# One that is still to be made is kept, but where nobody makes it: its webhook is disabled, or was
# deleted while it was written.
_OLD = """
WITH old AS (
  SELECT d.id FROM webhooks_delivery d
    LEFT JOIN webhooks_webhook w ON w.id = d.webhook_id
   WHERE d.created_at < now() - %(days)s * interval '1 day'
     AND (d.status IN ('delivered', 'failed') OR NOT COALESCE(w.enabled, false))
   ORDER BY d.created_at LIMIT %(limit)s
     FOR UPDATE OF d SKIP LOCKED),
tries AS (DELETE FROM webhooks_try WHERE delivery_id IN (SELECT id FROM old))
DELETE FROM webhooks_delivery WHERE id IN (SELECT id FROM old) RETURNING id
"""


def clean_up() -> None:
    """Delete old deliveries. Any number of these at once are harmless."""
    steps.run((forget_deliveries,))


def forget_deliveries() -> bool:
    """Delete one batch of old deliveries with their tries; return whether there may be more."""
    days = load_config().webhook_retention_days
    return bool(days) and len(query(_OLD, {"days": days, "limit": BATCH})) == BATCH
