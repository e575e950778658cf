"""Admin of agents, their sessions, hosts and queues."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django.contrib import admin, messages
from django.contrib.admin.views.main import ChangeList
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils import timezone
from unfold.decorators import display

from agents import (
    admin_breakers,  # noqa: F401 - its page registers itself
    admin_keys,  # noqa: F401
    admin_pools,  # noqa: F401 - its pages register themselves
    admin_routes,  # noqa: F401
    output,
    registry,
    workload,
)
from agents.models import Agent, AgentSession, AgentUsage, Host, Queue
from opscore.admin_columns import badge, block, link, moment, pretty
from opscore.admin_site import ReadOnlyAdmin, ReadOnlyInline, limited
from opscore.config import load_config
from opscore.errors import OpsCoreError
from opscore.sizes import shown_size

_OUTPUT_LINES = 200


def _usage(agent: Agent) -> AgentUsage | None:
    return getattr(agent, "usage", None)


class SessionInline(ReadOnlyInline):
    """The latest lives of an agent."""

    model = AgentSession
    fields = [
        "shown_start",
        "host",
        "pid",
        "generation",
        moment("ready_at", "ready"),
        moment("seen_at", "last seen"),
        moment("ended_at", "ended"),
        "end_reason",
    ]
    readonly_fields = fields
    ordering = ["-id"]
    verbose_name_plural = "latest sessions"

    @display(description="started")
    def shown_start(self, session: AgentSession) -> str:
        """Link to the session."""
        return link(session, f"{timezone.localtime(session.started_at):%Y-%m-%d %H:%M:%S}")

    def get_queryset(self, request: HttpRequest) -> QuerySet[AgentSession]:
        """Return the latest twenty: a crash loop makes thousands."""
        agent_id = (
            request.resolver_match.kwargs.get("object_id") if request.resolver_match else None
        )
        latest = AgentSession.objects.filter(agent=agent_id).order_by("-id")[:20]
        return AgentSession.objects.filter(pk__in=list(latest.values_list("id", flat=True)))


@admin.register(Agent)
class AgentAdmin(ReadOnlyAdmin):
    """Agents: restart, pause and stop them here."""

    list_display = [
        "name",
        "shown_status",
        "kind",
        "words",
        "labels_shown",
        "host",
        "memory",
        "cpu",
        "restarts",
        "desired",
        "reason_shown",
    ]
    list_select_related = ["usage"]
    list_filter = ["status", "kind", "desired", "paused", "host", "project"]
    search_fields = ["name", "spec", "host", "capabilities"]
    ordering = ["name"]
    actions = ["restart", "pause", "resume", "drain", "stop", "stop_by_force"]
    inlines = [SessionInline]
    fields = [
        "name",
        "shown_status",
        "reason_whole",
        "kind",
        "spec",
        "host",
        "words",
        "labels_shown",
        "concurrency",
        "desired",
        "takes",
        "generation",
        "restarts",
        "running_tasks",
        "memory",
        "cpu",
        "project",
        moment("created_at", "created"),
        moment("changed_at", "changed"),
        "output_shown",
    ]

    def get_changelist_instance(self, request: HttpRequest) -> ChangeList:
        """Count the running tasks of the whole page in one query."""
        changes = super().get_changelist_instance(request)
        counts = workload.running(list(changes.result_list))
        for agent in changes.result_list:
            agent.task_count = counts[agent.pk]
        return changes

    @display(description="status", ordering="status")
    def shown_status(self, agent: Agent) -> str:
        """Show the status, `busy` where the agent has tasks."""
        status = badge(workload.shown_status(agent, self.running_tasks(agent)))
        return status + badge("paused") if agent.paused else status

    @display(description="running tasks")
    def running_tasks(self, agent: Agent) -> int:
        """Count what the agent runs now."""
        count: int | None = getattr(agent, "task_count", None)
        return workload.running([agent])[agent.pk] if count is None else count

    @display(description="memory", ordering="usage__memory")
    def memory(self, agent: Agent) -> str:
        """Show what its processes use."""
        used = _usage(agent)
        return shown_size(used.memory) if used else "–"

    @display(description="CPU", ordering="usage__cpu_percent")
    def cpu(self, agent: Agent) -> str:
        """Show what share of a core its processes use."""
        used = _usage(agent)
        return f"{used.cpu_percent:.0f} %" if used else "–"

    @display(description="output")
    def output_shown(self, agent: Agent) -> str:
        """Show the end of what it wrote to stdout and stderr."""
        if not agent.host:
            return "–"
        return block("\n".join(output.tail(agent, _OUTPUT_LINES).lines))

    @display(description="capabilities")
    def words(self, agent: Agent) -> str:
        """List what it offers."""
        return ", ".join(agent.capabilities) or "–"

    @display(description="labels")
    def labels_shown(self, agent: Agent) -> str:
        """List its labels."""
        return ", ".join(agent.labels) or "–"

    @display(description="reason")
    def reason_whole(self, agent: Agent) -> str:
        """Show why it is in its status: of a crash loop its last lines."""
        return block(agent.reason) if agent.reason else "–"

    @display(description="takes tasks")
    def takes(self, agent: Agent) -> str:
        """Say whether it was paused."""
        return "no: it is paused" if agent.paused else "yes"

    @display(description="reason")
    def reason_shown(self, agent: Agent) -> str:
        """Show why it is in its status, shortened."""
        return agent.reason.partition("\n")[0][:80] or "–"

    @admin.action(description="Restart the selected agents")
    def restart(self, request: HttpRequest, queryset: QuerySet[Agent]) -> None:
        """Have their processes replaced."""
        self._each(request, queryset, registry.restart, "Restart of {} asked for.")

    @admin.action(description="Pause the selected agents")
    def pause(self, request: HttpRequest, queryset: QuerySet[Agent]) -> None:
        """Have them take nothing new."""
        self._each(request, queryset, registry.pause, "{} is paused.")

    @admin.action(description="Resume the selected agents")
    def resume(self, request: HttpRequest, queryset: QuerySet[Agent]) -> None:
        """Have them take tasks again."""
        self._each(request, queryset, registry.resume, "{} takes tasks again.")

    @admin.action(description="Drain the selected agents: finish, then end")
    def drain(self, request: HttpRequest, queryset: QuerySet[Agent]) -> None:
        """Have them take nothing new, finish and end."""
        self._each(request, queryset, registry.drain, "{} finishes what it has and ends.")

    @admin.action(description="Stop the selected agents at once")
    def stop_by_force(self, request: HttpRequest, queryset: QuerySet[Agent]) -> None:
        """Have them killed; what they have runs elsewhere."""
        self._each(request, queryset, registry.stop, "{} is stopped by force.")

    @admin.action(description="Stop the selected agents")
    def stop(self, request: HttpRequest, queryset: QuerySet[Agent]) -> None:
        """Have them finish and end."""
        self._each(request, queryset, registry.retire, "Stop of {} asked for.")

    def _each(self, request: HttpRequest, agents: QuerySet[Agent], verb: Any, said: str) -> None:
        for agent in agents.select_related("project"):
            try:
                verb(agent, request.user.get_username())
                self.message_user(request, said.format(agent.name))
            except OpsCoreError as error:
                self.message_user(request, str(error), messages.ERROR)


class HostFilter(admin.SimpleListFilter):
    """Sessions by host; the hosts have rows of their own, sessions are many."""

    title = "host"
    parameter_name = "host"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        """Offer the hosts with a supervisor."""
        hosts = limited(request, Host.objects.all())
        names = hosts.order_by("name").values_list("name", flat=True).distinct()
        return [(name, name) for name in names]

    def queryset(
        self, request: HttpRequest, queryset: QuerySet[AgentSession]
    ) -> QuerySet[AgentSession]:
        """Keep the sessions on the host that was chosen."""
        host = self.value()
        return queryset.filter(host=host) if host else queryset


@admin.register(AgentSession)
class AgentSessionAdmin(ReadOnlyAdmin):
    """Lives of agents."""

    list_display = [
        "shown_agent",
        "state",
        "host",
        "pid",
        "generation",
        moment("started_at", "started"),
        moment("seen_at", "last seen"),
        moment("ended_at", "ended"),
        "end_reason",
    ]
    list_filter = [("ended_at", admin.EmptyFieldListFilter), HostFilter, "started_at"]
    search_fields = ["agent__name", "host", "end_reason", "id"]
    list_select_related = ["agent"]
    ordering = ["-id"]
    fields = [
        "id",
        "shown_agent",
        "state",
        "host",
        "pid",
        "generation",
        "shown_queues",
        moment("started_at", "started"),
        moment("ready_at", "ready"),
        moment("seen_at", "last seen"),
        moment("ended_at", "ended"),
        "end_reason",
        "condemned",
    ]

    @display(description="agent", ordering="agent__name")
    def shown_agent(self, session: AgentSession) -> str:
        """Link to the agent."""
        return link(session.agent)

    @display(description="state")
    def state(self, session: AgentSession) -> str:
        """Say whether it lives."""
        if session.ended_at is not None:
            return badge("ended")
        silent = timezone.now() - session.seen_at
        if silent > timedelta(seconds=load_config().session_ttl_s):
            return badge("silent")
        return badge("live" if session.ready_at else "starting")

    @display(description="queues")
    def shown_queues(self, session: AgentSession) -> str:
        """List the queues that it consumes."""
        return ", ".join(session.queues) or "none: it polls"


@admin.register(Host)
class HostAdmin(ReadOnlyAdmin):
    """Machines with a supervisor."""

    list_display = ["name", "state", "pid", moment("seen_at", "last seen"), "offers", "project"]
    list_filter = ["project"]
    search_fields = ["name"]
    ordering = ["name"]
    fields = [
        "name",
        "state",
        "project",
        "pid",
        "carries",
        moment("seen_at", "last seen"),
        "shown_specs",
    ]

    @display(description="state")
    def state(self, host: Host) -> str:
        """Say whether its supervisor beats."""
        silent = timezone.now() - host.seen_at > timedelta(seconds=load_config().session_ttl_s)
        return badge("silent" if silent or host.pid is None else "live")

    @display(description="offers")
    def offers(self, host: Host) -> str:
        """List its agent specs."""
        return ", ".join(sorted(host.specs)) or "–"

    @display(description="agent specs")
    def shown_specs(self, host: Host) -> str:
        """Show its agent specs, readable."""
        return pretty(host.specs)


@admin.register(Queue)
class QueueAdmin(ReadOnlyAdmin):
    """Queues of the broker."""

    list_display = ["name", "capability", "shown_labels", "project"]
    list_filter = ["project"]
    search_fields = ["name", "capability"]
    ordering = ["name"]
    fields = ["name", "capability", "shown_labels", "project"]

    @display(description="required labels")
    def shown_labels(self, queue: Queue) -> str:
        """List the labels that its tasks require."""
        return ", ".join(queue.labels) or "–"
