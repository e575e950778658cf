"""Agents and sessions as JSON."""

from __future__ import annotations

from typing import Any

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from agents import pools, registry, workload
from agents.models import Agent, AgentSession, Endpoint, Host
from agents.states import AGENT, KINDS
from agents.workload import shown_status
from opscore.api.endpoint import StrictSerializer
from opscore.api.schema import name_enum
from opscore.api.shown import Shown

STATUSES = (*AGENT.statuses, "busy")
name_enum("AgentStatus", STATUSES)
name_enum("AgentKind", KINDS)


def _words(help_text: str) -> serializers.ListField:
    word = serializers.CharField(max_length=80)
    return serializers.ListField(child=word, required=False, max_length=100, help_text=help_text)


class RegisterSerializer(StrictSerializer):
    """What `POST /agents` takes."""

    name = serializers.CharField(max_length=100)
    kind = serializers.ChoiceField(KINDS)
    spec = serializers.CharField(
        max_length=100,
        required=False,
        allow_blank=True,
        help_text="For worker and command: a name from a host's file of agent specs.",
    )
    capabilities = _words("Default: those of the spec.")
    labels = _words("What tasks may require of it.")
    url = serializers.CharField(
        max_length=2000, required=False, help_text="For http: where it takes tasks (POST)."
    )
    health_path = serializers.CharField(
        max_length=500,
        required=False,
        allow_blank=True,
        help_text="For http: path that answers 2xx while it is well; default: its URL, any answer "
        "below 500.",
    )
    concurrency = serializers.IntegerField(
        min_value=1,
        max_value=1000,
        required=False,
        help_text="Tasks that it has at once, for http and remote; default: 1 for http, as many "
        "as it claims for remote. Others have what their spec says.",
    )
    timeout_s = serializers.FloatField(
        min_value=1,
        max_value=3600,
        required=False,
        help_text="For http: how long an answer may take; default 300.",
    )


class SessionSerializer(serializers.ModelSerializer[AgentSession]):
    """One life of an agent."""

    class Meta:
        model = AgentSession
        fields = [
            "id",
            "host",
            "pid",
            "generation",
            "queues",
            "started_at",
            "ready_at",
            "seen_at",
            "ended_at",
            "end_reason",
        ]


class UsageSerializer(serializers.Serializer[Any]):
    """What an agent's processes use."""

    memory_bytes = serializers.IntegerField(
        source="memory", help_text="Resident, with all that it started."
    )
    cpu_percent = serializers.FloatField(help_text="Of one core.")
    sampled_at = serializers.DateTimeField(help_text="When it last changed noticeably.")


class AgentSerializer(serializers.ModelSerializer[Agent]):
    """An agent; `status` is `busy` while an active agent has running tasks."""

    status = serializers.SerializerMethodField()
    running_tasks = serializers.SerializerMethodField()
    usage = serializers.SerializerMethodField()

    class Meta:
        model = Agent
        fields = [
            "id",
            "name",
            "kind",
            "spec",
            "host",
            "capabilities",
            "labels",
            "concurrency",
            "status",
            "reason",
            "desired",
            "paused",
            "running_tasks",
            "usage",
            "restarts",
            "created_at",
            "changed_at",
        ]

    @extend_schema_field({"type": "string", "enum": [*STATUSES]})
    def get_status(self, agent: Agent) -> str:
        """Return the status, with `busy` derived from the running tasks."""
        return shown_status(agent, self.get_running_tasks(agent))

    @extend_schema_field(UsageSerializer(allow_null=True))
    def get_usage(self, agent: Agent) -> dict[str, Any] | None:
        """Return memory and CPU of a supervised agent; null while it has no process."""
        found = getattr(agent, "usage", None)
        return None if found is None else dict(UsageSerializer(found).data)

    def get_running_tasks(self, agent: Agent) -> int:
        """Return how many tasks it runs now; the view counts for all agents at once."""
        count: int = self.context.get("running", {}).get(agent.pk, 0)
        return count


class EndpointSerializer(serializers.ModelSerializer[Endpoint]):
    """Where an agent of kind http takes its tasks."""

    concurrency = serializers.IntegerField(source="agent.concurrency", allow_null=True)

    class Meta:
        model = Endpoint
        fields = ["url", "health_path", "concurrency", "timeout_s"]


class AgentDetailSerializer(AgentSerializer):
    """An agent with its latest lives."""

    sessions = serializers.SerializerMethodField()
    endpoint = serializers.SerializerMethodField()

    class Meta(AgentSerializer.Meta):
        fields = [*AgentSerializer.Meta.fields, "endpoint", "sessions"]

    @extend_schema_field(EndpointSerializer(allow_null=True))
    def get_endpoint(self, agent: Agent) -> dict[str, Any] | None:
        """Return where it takes its tasks; None for other kinds than http."""
        endpoint = Endpoint.objects.filter(agent=agent).first()
        return None if endpoint is None else dict(EndpointSerializer(endpoint).data)

    @extend_schema_field(SessionSerializer(many=True))
    def get_sessions(self, agent: Agent) -> list[dict[str, Any]]:
        """Return the ten latest sessions."""
        return list(SessionSerializer(agent.sessions.order_by("-id")[:10], many=True).data)


class RegisteredSerializer(AgentDetailSerializer):
    """A registered agent."""

    secret = serializers.CharField(
        required=False,
        help_text="Only when an agent of kind http is new: requests to it are signed with this. "
        "It is not shown again.",
    )

    class Meta(AgentDetailSerializer.Meta):
        fields = [*AgentDetailSerializer.Meta.fields, "secret"]


class SigningSecretSerializer(serializers.Serializer[Any]):
    """A secret, shown once."""

    secret = serializers.CharField()


class StartSessionSerializer(StrictSerializer):
    """What an executor says about itself when it starts."""

    host = serializers.CharField(max_length=100, required=False, allow_blank=True)
    pid = serializers.IntegerField(required=False, min_value=1, max_value=2**31 - 1)


class StartedSessionSerializer(serializers.Serializer[Any]):
    """A new session, and how its executor should behave."""

    session_id = serializers.UUIDField()
    heartbeat_s = serializers.FloatField(help_text="Beat at least this often.")
    claim_wait_max_s = serializers.FloatField(help_text="The longest `wait_s` of a claim.")


class StopSerializer(StrictSerializer):
    """How an agent should stop."""

    force = serializers.BooleanField(default=False, help_text="At once, whatever it has.")


class OutputSerializer(serializers.Serializer[Any]):
    """The end of what an agent wrote."""

    lines = serializers.ListField(child=serializers.CharField(), help_text="Oldest first.")
    written_at = serializers.DateTimeField(
        allow_null=True, help_text="When its supervisor told; null: never."
    )
    fresh = serializers.BooleanField(help_text="Whether its supervisor answered just now.")


class AutoscaleSerializer(StrictSerializer):
    """A rule for the size of a pool."""

    min = serializers.IntegerField(min_value=0, max_value=pools.MAX_REPLICAS)
    max = serializers.IntegerField(min_value=1, max_value=pools.MAX_REPLICAS)
    queue_wait_s = serializers.FloatField(
        min_value=0.1, max_value=86400, help_text="It grows when a task has waited so long."
    )

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        """Refuse a least number above the most."""
        if attrs["min"] > attrs["max"]:
            message = f"min is above max ({attrs['min']} > {attrs['max']})"
            raise serializers.ValidationError({"min": message})
        return attrs


class ScaleSerializer(StrictSerializer):
    """How many agents a pool should have."""

    replicas = serializers.IntegerField(
        min_value=0, max_value=pools.MAX_REPLICAS, required=False, help_text="Always so many."
    )
    autoscale = AutoscaleSerializer(
        required=False, help_text="As many as this rule says; either this or `replicas`."
    )

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        """Refuse both, and none."""
        if len(attrs) != 1:
            raise serializers.ValidationError("Say either `replicas` or `autoscale`.")
        return attrs


class OfferedSerializer(serializers.Serializer[Any]):
    """A spec that a host offers, and its pool."""

    name = serializers.CharField()
    kind = serializers.ChoiceField(KINDS)
    capabilities = serializers.ListField(child=serializers.CharField())
    labels = serializers.ListField(child=serializers.CharField())
    replicas = serializers.IntegerField(default=0, help_text="What the host's file says.")
    set_replicas = serializers.IntegerField(
        allow_null=True, help_text="What an operator set; it goes before all else."
    )
    scaled_replicas = serializers.IntegerField(
        allow_null=True, help_text="What the autoscale rule decided last."
    )
    autoscale = AutoscaleSerializer(
        default=None, allow_null=True, help_text="The rule: an operator's, else the file's."
    )
    set_autoscale = AutoscaleSerializer(
        allow_null=True, help_text="The rule that an operator set; it goes before the file."
    )
    max_replicas = serializers.IntegerField(
        default=None, allow_null=True, help_text="The largest pool that the host's file allows."
    )
    agents = serializers.IntegerField(help_text="Agents that should run, with those of the API.")
    active = serializers.IntegerField(help_text="Those of them that take work.")


class HostSerializer(serializers.ModelSerializer[Host]):
    """A machine with a supervisor."""

    specs = serializers.SerializerMethodField()
    live = serializers.SerializerMethodField()

    class Meta:
        model = Host
        fields = ["name", "live", "pid", "carries", "seen_at", "specs"]

    def get_live(self, host: Host) -> bool:
        """Tell whether its supervisor lives: what is wanted of another waits for one."""
        return registry.is_live(host)

    @extend_schema_field(OfferedSerializer(many=True))
    def get_specs(self, host: Host) -> list[dict[str, Any]]:
        """Return what it offers, by name."""
        return list(OfferedSerializer(pools.shown(host), many=True).data)


def shown(agent: Agent) -> dict[str, Any]:
    """Return an agent as JSON, with sessions and the count of its tasks."""
    return _agent_detail(agent, running=workload.running([agent]))


_agent_detail = Shown(AgentDetailSerializer)
