"""Tasks, attempts, logs and runs as JSON."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any
from uuid import UUID

from django.db.models.functions import Now
from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from agents.models import Agent, AgentSession
from agents.routing import MAX_LIKING
from opscore.api.endpoint import StrictSerializer
from opscore.api.schema import name_enum
from opscore.api.shown import Shown
from tasks import places
from tasks.models import Attempt, Run, Task, TaskLog, TaskProgress
from tasks.results import outputs_of, result_of
from tasks.states import RUN, TASK
from tasks.submission import MAX_FAIRNESS_KEY

name_enum("TaskStatus", TASK.statuses)
name_enum("RunStatus", RUN.statuses)
_PRIORITY: dict[str, Any] = {"min_value": 0, "max_value": 9, "required": False}


class ErrorValueSerializer(serializers.Serializer[Any]):
    """Why an attempt failed."""

    type = serializers.CharField(min_length=1, trim_whitespace=False)
    # Many an exception has no message.
    message = serializers.CharField(allow_blank=True, trim_whitespace=False)
    retryable = serializers.BooleanField(required=False)
    retry_after_s = serializers.FloatField(
        required=False, help_text="The task's resources are left alone so many seconds."
    )


class AgentRefSerializer(serializers.Serializer[Any]):
    """The agent that has or had a task."""

    id = serializers.UUIDField()
    name = serializers.CharField()


class RetrySerializer(StrictSerializer):
    """When a failed attempt is tried again: exponential backoff with full jitter."""

    limit = serializers.IntegerField(
        min_value=0, max_value=100, help_text="Retries after the first attempt."
    )
    initial_s = serializers.FloatField(min_value=0, max_value=86400, required=False)
    factor = serializers.FloatField(min_value=1, max_value=100, required=False)
    max_s = serializers.FloatField(min_value=0, max_value=7 * 86400, required=False)


#: How every start of work is told whose it is.
FAIRNESS: Mapping[str, Any] = {
    "max_length": MAX_FAIRNESS_KEY,
    "required": False,
    "help_text": "Whose work it is, such as a customer; default: the name of the API key. Where the "
    "work of several waits for the same agents, they take turns.",
}


class SubmitSerializer(StrictSerializer):
    """What `POST /tasks` takes."""

    capability = serializers.CharField(max_length=80)
    inputs = serializers.DictField(
        required=False, help_text="What the handler gets, as it is (a `${{` is kept as `$${{`)."
    )
    requires = serializers.ListField(
        child=serializers.CharField(max_length=80), required=False, max_length=20
    )
    prefers = serializers.DictField(
        child=serializers.IntegerField(min_value=-MAX_LIKING, max_value=MAX_LIKING),
        required=False,
        help_text="Label -> weight, -100 to 100: who suits best among the free agents gets it.",
    )
    sticky = serializers.CharField(
        max_length=300,
        required=False,
        help_text="A key: its tasks go to the same agent for as long as that lives.",
    )
    priority = serializers.IntegerField(**_PRIORITY, help_text="0-9, 9 is served first; default 5.")
    retry = RetrySerializer(required=False)
    timeout_s = serializers.FloatField(
        required=False, allow_null=True, min_value=0.001, max_value=30 * 86400
    )
    key = serializers.CharField(max_length=200, required=False, help_text="Your word for it.")
    fairness_key = serializers.CharField(**FAIRNESS)
    resource = serializers.ListField(
        child=serializers.RegexField(r"^[^\s/]+$", max_length=80),
        required=False,
        max_length=4,
        help_text="What it uses outside (`openai`): each name has a circuit breaker.",
    )


class AttemptSerializer(serializers.ModelSerializer[Attempt]):
    """A try that did not complete: it failed, or its agent was lost."""

    error = ErrorValueSerializer(allow_null=True)

    class Meta:
        model = Attempt
        fields = ["number", "outcome", "session_id", "error", "started_at", "ended_at"]


class LogSerializer(serializers.ModelSerializer[TaskLog]):
    """One line of an attempt's log."""

    class Meta:
        model = TaskLog
        fields = ["id", "attempt", "at", "stream", "text"]


class TaskSerializer(serializers.ModelSerializer[Task]):
    """A task, without what may be large."""

    run_id = serializers.UUIDField()
    agent = serializers.SerializerMethodField()
    error = ErrorValueSerializer(allow_null=True)

    class Meta:
        model = Task
        fields = [
            "id",
            "run_id",
            "key",
            "uses",
            "capability",
            "requires",
            "priority",
            "status",
            "attempt",
            "losses",
            "join",
            "phase",
            "waits_for",
            "item_index",
            "item_count",
            "agent",
            "error",
            "created_at",
            "ready_at",
            "started_at",
            "completed_at",
            "wake_at",
        ]

    @extend_schema_field(AgentRefSerializer(allow_null=True))
    def get_agent(self, task: Task) -> dict[str, Any] | None:
        """Return the agent of the present or last attempt; None before the first."""
        agents: Mapping[UUID, Agent] = self.context.get("agents", {})
        agent = agents.get(task.session_id) if task.session_id else None
        return None if agent is None else {"id": str(agent.pk), "name": agent.name}


class ProgressSerializer(serializers.ModelSerializer[TaskProgress]):
    """How far an attempt is, as its agent said last."""

    class Meta:
        model = TaskProgress
        fields = ["attempt", "fraction", "message", "updated_at"]


class TaskDetailSerializer(TaskSerializer):
    """Everything about one task."""

    attempts = serializers.SerializerMethodField()
    progress = serializers.SerializerMethodField()
    child_run_id = serializers.UUIDField(
        source="names.run",
        default=None,
        allow_null=True,
        help_text="The run that is or was its body.",
    )
    result = serializers.SerializerMethodField()

    class Meta(TaskSerializer.Meta):
        fields = [
            *TaskSerializer.Meta.fields,
            "retry",
            "timeout_s",
            "queue",
            "for_agent",
            "for_until",
            "routing",
            "flow",
            "names",
            "child_run_id",
            "session_id",
            "lease_until",
            "inputs",
            "outputs",
            "result",
            "attempts",
            "progress",
        ]

    @extend_schema_field(AttemptSerializer(many=True))
    def get_attempts(self, task: Task) -> list[dict[str, Any]]:
        """Return the tries that did not complete, oldest first."""
        if not task.fence:  # never begun, nor ended: what was just submitted costs no query
            return []
        return list(AttemptSerializer(task.attempts.order_by("id"), many=True).data)

    @extend_schema_field(ProgressSerializer(allow_null=True))
    def get_progress(self, task: Task) -> dict[str, Any] | None:
        """Return what the agent said last; None when it said nothing."""
        if not task.fence:
            return None
        told = TaskProgress.objects.filter(task=task).first()
        return None if told is None else dict(ProgressSerializer(told).data)

    @extend_schema_field({"description": "What the handler returned; any JSON."})
    def get_result(self, task: Task) -> Any:
        """Return the result, wherever it is kept."""
        return result_of(task)


class RunTaskSerializer(TaskSerializer):
    """A task inside its run's graph."""

    needs = serializers.SerializerMethodField()
    successors = serializers.SerializerMethodField()

    class Meta(TaskSerializer.Meta):
        fields = [*TaskSerializer.Meta.fields, "needs", "successors"]

    def get_needs(self, task: Task) -> list[str]:
        """Return the keys of the tasks that must complete first."""
        needs: Mapping[int, list[str]] = self.context.get("needs", {})
        return needs.get(task.number, [])

    def get_successors(self, task: Task) -> list[str]:
        """Return the keys of the tasks that wait for this one."""
        keys: Mapping[int, str] = self.context.get("keys", {})
        return [keys[number] for number in task.successors if number in keys]


class RunSerializer(serializers.ModelSerializer[Run]):
    """A run, without its tasks."""

    error = ErrorValueSerializer(allow_null=True)

    class Meta:
        model = Run
        fields = [
            "id",
            "workflow",
            "version",
            "status",
            "priority",
            "fairness_key",
            "task_count",
            "phase",
            "parent_task_id",
            "rerun_of",
            "error",
            "created_at",
            "completed_at",
        ]


class PlaceSerializer(serializers.Serializer[Any]):
    """The place under its concurrency key that a run waits for."""

    key = serializers.CharField()
    limit = serializers.IntegerField(help_text="How many runs may have the key at once.")
    held_by = serializers.ListField(
        child=serializers.UUIDField(),
        help_text=f"Runs that have it now, oldest first; at most {places.MAX_HOLDERS} are named.",
    )
    ahead = serializers.IntegerField(help_text="How many other runs wait for it and come first.")


class RunDetailSerializer(RunSerializer):
    """A run with its graph: tasks in topological order."""

    waits_for_place = serializers.SerializerMethodField()
    tasks = serializers.SerializerMethodField()
    outputs = serializers.SerializerMethodField()
    context_entries = serializers.SerializerMethodField()
    open_messages = serializers.SerializerMethodField()

    class Meta(RunSerializer.Meta):
        fields = [
            *RunSerializer.Meta.fields,
            "waits_for_place",
            "context_entries",
            "open_messages",
            "inputs",
            "outputs",
            "tasks",
        ]

    def get_context_entries(self, run: Run) -> int:
        """Count the entries of its shared context."""
        return run.shared.count()

    def get_open_messages(self, run: Run) -> int:
        """Count the messages that somebody may still receive or acknowledge."""
        return run.messages.filter(acknowledged_at=None, expires_at__gt=Now()).count()

    @extend_schema_field(PlaceSerializer(allow_null=True, help_text="Null unless `created`."))
    def get_waits_for_place(self, run: Run) -> dict[str, Any] | None:
        """Return what a run that is `created` waits for; null for all others."""
        place = places.wanted_place(run)
        return None if place is None else dict(PlaceSerializer(place).data)

    @extend_schema_field(RunTaskSerializer(many=True))
    def get_tasks(self, run: Run) -> list[dict[str, Any]]:
        """Return the tasks, without the engine's own end node."""
        tasks = list(run.tasks.exclude(uses="end").defer("result").order_by("number"))
        keys = {task.number: task.key for task in tasks}
        needs: dict[int, list[str]] = {}
        for task in tasks:
            for successor in task.successors:
                needs.setdefault(successor, []).append(task.key)
        context = {"keys": keys, "needs": needs, "agents": agents_of(tasks)}
        return list(RunTaskSerializer(tasks, many=True, context=context).data)

    @extend_schema_field({"description": "The workflow's outputs; null until it completed."})
    def get_outputs(self, run: Run) -> Any:
        """Return what the workflow's `outputs` evaluated to."""
        return outputs_of(run)


def agents_of(tasks: Collection[Task]) -> dict[UUID, Agent]:
    """Return the agent of each session that the tasks name, in one query."""
    wanted = {task.session_id for task in tasks if task.session_id}
    if not wanted:
        return {}
    found = AgentSession.objects.filter(pk__in=wanted).select_related("agent")
    return {session.pk: session.agent for session in found}


TASK_SHOWN = Shown(TaskDetailSerializer)
RUN_SHOWN = Shown(RunDetailSerializer)
#: What decides whether somebody waits for its end.
_ALWAYS = frozenset({"id", "status"})


def task_shown(task: Task, only: Collection[str] = ()) -> dict[str, Any]:
    """Return everything about a task as JSON, or `only` some fields, its id and its status."""
    return TASK_SHOWN(task, _some(only), agents=agents_of([task]))


def run_shown(run: Run, only: Collection[str] = ()) -> dict[str, Any]:
    """Return a run with its tasks as JSON, or `only` some fields, its id and its status."""
    return RUN_SHOWN(run, _some(only))


def _some(only: Collection[str]) -> Collection[str]:
    return _ALWAYS.union(only) if only else ()
