"""What a support person would ask for, of tasks: who waits in vain, what is stuck or held."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from agents.candidates import candidates
from agents.models import Agent
from opscore.database import query
from opscore.diagnosis import SHOWN, Check, Finding
from opscore.models import Project
from tasks.models import Pause, Task
from tasks.pusher import LOCK_CLASS
from tasks.stuck import stuck as found_stuck

# What the engine does itself goes through the platform's own queue.
_QUEUES = """
SELECT capability, requires, count(*) AS tasks, min(ready_at) AS since
  FROM tasks_task WHERE project_id = %(project)s AND status = 'queued' AND uses <> 'end'
 GROUP BY capability, requires ORDER BY min(ready_at) LIMIT 200
"""
_PUSHER = """
SELECT count(*) AS holders FROM pg_locks
 WHERE locktype = 'advisory' AND classid = %(class)s AND objid = 0 AND granted
"""


def pusher(project: Project) -> Iterator[Finding]:
    """Say whether somebody sends tasks to agents of kind http, where there are any."""
    runs = query(_PUSHER, {"class": LOCK_CLASS})[0]["holders"] > 0
    mine = Agent.objects.filter(project=project, kind="http").exclude(status="terminated")
    if runs:
        yield Finding("pusher", "ok", "runs")
    elif mine.exists():
        message = "does not run, and agents of kind http wait for it"
        yield Finding("pusher", "fail", message, "start `manage.py push`")
    else:
        yield Finding("pusher", "ok", "does not run; no agent of kind http needs it")


def queues(project: Project) -> Iterator[Finding]:
    """Say which queued tasks nobody is able to take."""
    rows = query(_QUEUES, {"project": project.pk})
    total, forsaken = sum(row["tasks"] for row in rows), 0
    for row in rows:
        able = any(one.able for one in candidates(project.pk, row["capability"], row["requires"]))
        if able:
            continue
        forsaken += 1
        if forsaken > SHOWN:
            break
        labels = f" with {', '.join(row['requires'])}" if row["requires"] else ""
        message = (
            f"nobody is able to take the {row['tasks']} queued for {row['capability']}{labels}"
        )
        advice = "start or mend an agent that offers it; `opscore why TASK` says what keeps each"
        since = f", since {row['since']:%Y-%m-%d %H:%M:%S} UTC" if row["since"] else ""
        yield Finding("queues", "fail", f"{message}{since}", advice)
    if not forsaken:
        yield Finding("queues", "ok", f"{total} tasks are queued, and somebody is able to do each")


def stuck(project: Project) -> Iterator[Finding]:
    """Say what nobody works on nor ever will; there should be none."""
    mine = [row for row in found_stuck() if row["project_id"] == project.pk]
    for row in mine[:SHOWN]:
        advice = f"opscore rerun {row['id']} after opscore cancel {row['id']}; please report it"
        yield Finding("stuck runs", "fail", f"{row['id']}: {row['why']}", advice)
    if not mine:
        yield Finding("stuck runs", "ok", "none")


def held(project: Project) -> Iterator[Finding]:
    """Say what somebody has paused, and what waits for a person."""
    for pause in Pause.objects.filter(project=project).order_by("created_at")[:SHOWN]:
        what = f"the workflow {pause.workflow}" if pause.workflow else "everything"
        why = f" ({pause.reason})" if pause.reason else ""
        message = f"{what} is paused since {pause.created_at:%Y-%m-%d %H:%M:%S} UTC by {pause.paused_by}{why}"
        yield Finding("pauses", "warn", message, "end it: POST /resume, or in the admin")
    asked = Task.objects.filter(project=project, status="waiting", waits_for="approval").count()
    if asked:
        message = f"{asked} tasks wait for a person's decision"
        yield Finding("approvals", "ok", message, "opscore approvals")


CHECKS: Sequence[Check] = (pusher, queues, stuck, held)
