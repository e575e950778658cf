"""The admin's first page: what runs, what waits for a person, what is broken."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any, TypeVar

from django.db.models import Count, Model, QuerySet
from django.http import HttpRequest
from django.urls import reverse
from django.utils import timezone

from agents.models import Agent, Breaker
from agents.states import AGENT
from opscore.admin_columns import badge, link, message_of, short
from opscore.admin_site import limited
from tasks.models import Run, Task
from tasks.states import RUN, TASK

M = TypeVar("M", bound=Model)

#: Rows of one list; the pages behind have all.
_SHOWN = 5
#: To count further would read a large part of the table.
_COUNTED = 10_000
_DAY = timedelta(days=1)
_BROKEN = ("error", "unresponsive")


def home(request: HttpRequest, context: dict[str, Any]) -> dict[str, Any]:
    """Add what the first page shows to its context; the theme calls it."""
    if request.user.has_perm("tasks.view_run") and request.user.has_perm("agents.view_agent"):
        cards = (_runs, _tasks, _agents, _lately)
        lists = (_failed, _broken, _open_breakers, _approvals)
        own = _Own(request)
        context["cards"] = [card(own) for card in cards]
        context["lists"] = [made(own) for made in lists]
    return context


class _Own:
    """The rows of a person's projects."""

    def __init__(self, request: HttpRequest) -> None:
        self._request = request

    def __call__(self, model: type[M]) -> QuerySet[M]:
        return limited(self._request, model._default_manager.all())  # noqa: SLF001 - Django's documented name


def _runs(own: _Own) -> Mapping[str, Any]:
    live = own(Run).exclude(status__in=RUN.terminal)
    return _card("Runs", "admin:tasks_run_changelist", live, "No run is live.")


def _tasks(own: _Own) -> Mapping[str, Any]:
    live = own(Task).exclude(status__in=[*TASK.terminal, "pending"]).exclude(uses="end")
    return _card("Tasks", "admin:tasks_task_changelist", live, "No task is queued or at work.")


def _agents(own: _Own) -> Mapping[str, Any]:
    there = own(Agent).exclude(status__in=AGENT.terminal).exclude(status="terminated")
    return _card("Agents", "admin:agents_agent_changelist", there, "No agent is there.")


def _lately(own: _Own) -> Mapping[str, Any]:
    since = timezone.now() - _DAY
    facts = []
    for status in sorted(RUN.terminal):
        ended = own(Run).filter(status=status, completed_at__gt=since)
        number = ended.order_by()[: _COUNTED + 1].count()
        if number:
            shown = f"{_COUNTED}+" if number > _COUNTED else number
            facts.append(_fact("admin:tasks_run_changelist", status, shown))
    return {"title": "Runs of 24 hours", "facts": facts, "nothing": "No run has ended."}


def _card(title: str, page: str, rows: QuerySet[M], nothing: str) -> Mapping[str, Any]:
    counts = rows.order_by().values_list("status").annotate(number=Count("pk"))
    facts = [_fact(page, status, number) for status, number in sorted(counts)]
    return {"title": title, "facts": facts, "nothing": nothing}


def _fact(page: str, status: str, number: int | str) -> Mapping[str, Any]:
    address = f"{reverse(page)}?status__exact={status}"
    return {"words": badge(status), "number": number, "address": address}


def _failed(own: _Own) -> Mapping[str, Any]:
    runs = own(Run).filter(status="failed", completed_at__isnull=False).order_by("-completed_at")
    rows = [
        [
            link(run, f"{run.workflow or 'task'} {short(run.pk)}"),
            _at(run.completed_at),
            message_of(run.error),
        ]
        for run in runs.defer("inputs")[:_SHOWN]
    ]
    return _list("Runs that failed last", ["run", "ended", "error"], rows, "None.")


def _broken(own: _Own) -> Mapping[str, Any]:
    agents = own(Agent).filter(status__in=_BROKEN).order_by("-changed_at")[:_SHOWN]
    rows = [
        [link(agent), badge(agent.status), _at(agent.changed_at), _first_line(agent.reason)]
        for agent in agents
    ]
    return _list("Agents that need somebody", ["agent", "status", "since", "reason"], rows, "None.")


def _open_breakers(own: _Own) -> Mapping[str, Any]:
    shut = own(Breaker).exclude(state="closed").order_by("-since")[:_SHOWN]
    rows = [[link(one), badge(one.state), _at(one.since), one.reason[:200]] for one in shut]
    return _list("Open breakers", ["breaker", "state", "since", "reason"], rows, "None.")


def _approvals(own: _Own) -> Mapping[str, Any]:
    waiting = own(Task).filter(status="waiting", waits_for="approval").select_related("run")
    rows = [
        [
            link(task, task.key),
            task.run.workflow,
            _at(task.started_at or task.ready_at),
            _asked(task),
        ]
        for task in waiting.order_by("-pk")[:_SHOWN]
    ]
    titles = ["task", "workflow", "since", "asks"]
    return _list("Waiting for a decision", titles, rows, "Nothing waits for a decision.")


def _asked(task: Task) -> str:
    return str(task.names.get("approval", {}).get("message", ""))[:200]


def _list(
    title: str, titles: Sequence[str], rows: Sequence[Sequence[Any]], nothing: str
) -> Mapping[str, Any]:
    return {"title": title, "table": {"headers": titles, "rows": rows}, "nothing": nothing}


def _at(moment: Any) -> str:
    return f"{timezone.localtime(moment):%Y-%m-%d %H:%M:%S}" if moment else "–"


def _first_line(text: str) -> str:
    return text.partition("\n")[0][:200] or "–"
