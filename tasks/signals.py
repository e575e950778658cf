"""What the engine tells the floors above."""

from __future__ import annotations

from django.dispatch import Signal

#: A run has ended: `run_id`, `project_id`, `status`, `workflow`. Sent after the commit, perhaps
#: twice, and not at all when the process dies: whoever needs it must also look.
run_ended = Signal()
