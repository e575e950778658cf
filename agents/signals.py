"""News of this floor for the floors above: always sent after commit."""

from __future__ import annotations

from django.dispatch import Signal

#: Sessions ended: `session_ids` (list of UUID), `reason`. Whatever they held must be given back.
sessions_ended = Signal()
#: An agent takes work from now on: `agent_id` (UUID), `agent` (Agent).
session_ready = Signal()
#: Every few seconds in each supervisor, for work that must go on when beat is dead.
#: Receivers must be harmless when they run twice and cheap when there is nothing to do.
fallback_tick = Signal()
