"""Log lines of attempts: bounded, so that a talkative agent fills no disk."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from opscore import vault
from opscore.config import load_config
from tasks.models import TaskLog

#: Longer lines are cut.
MAX_LINE = 4000


#: The last line of a log that was cut.
FULL = "the log is full: later lines are dropped"


def append(project_id: int, task_id: UUID, attempt: int, lines: Sequence[tuple[str, str]]) -> bool:
    """Add (stream, text) lines to an attempt's log; return whether there is room for more.

    The project's secrets are masked in them.
    """
    masked = vault.redactor(project_id).text
    kept = TaskLog.objects.filter(task_id=task_id, attempt=attempt).count()
    room = max(load_config().max_log_lines - kept, 0)
    wanted = [(stream, line) for stream, text in lines for line in masked(text).splitlines()]
    fitting = wanted[:room]
    full = len(wanted) >= room
    if full and room:
        fitting[-1:] = [("platform", FULL)]
    TaskLog.objects.bulk_create(
        TaskLog(task_id=task_id, attempt=attempt, stream=stream[:8], text=_clean(line))
        for stream, line in fitting
    )
    return not full


def _clean(line: str) -> str:
    return line[:MAX_LINE].replace("\0", "\N{SYMBOL FOR NULL}").encode(errors="replace").decode()
