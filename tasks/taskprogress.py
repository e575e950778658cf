"""How far an attempt is: the last thing that its agent said, kept under its fence."""

from __future__ import annotations

from uuid import UUID

from opscore.database import query


def tell(task_id: UUID, fence: int, *, fraction: float | None, message: str) -> bool:
    """Keep the progress of a running attempt; False: the fence is old, nothing is kept."""
    told = {"id": task_id, "fence": fence, "fraction": fraction, "message": message}
    return bool(query(_TELL, told))


# The task's row is only read: progress may come often, and that row is wide and hot.
_TELL = """
INSERT INTO tasks_taskprogress (task_id, attempt, fraction, message, updated_at)
SELECT id, attempt, %(fraction)s::float, %(message)s::text, clock_timestamp()
  FROM tasks_task WHERE id = %(id)s AND fence = %(fence)s AND status = 'running'
ON CONFLICT (task_id) DO UPDATE
   SET attempt = excluded.attempt, fraction = excluded.fraction, message = excluded.message,
       updated_at = excluded.updated_at
RETURNING task_id
"""
