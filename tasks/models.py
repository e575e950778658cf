"""Runs, tasks, attempts: the rows that decide. Statuses are written by `tasks.transitions` only."""

from __future__ import annotations

from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models import Q
from django.db.models.functions import Now

from opscore.ids import uuid7
from opscore.models import Project
from tasks.bindings import Sticky, Turn
from tasks.exchange import Message, SharedEntry, SharedTotal
from tasks.flow import JOINS
from tasks.states import RUN, TASK
from tasks.task_indexes import ITEMS, TURNS

__all__ = [
    "Attempt",
    "Message",
    "Pause",
    "Payload",
    "RateWindow",
    "Run",
    "SharedEntry",
    "SharedTotal",
    "Signal",
    "Sticky",
    "Task",
    "TaskLog",
    "Turn",
]


class Run(models.Model):
    """One execution of a graph of tasks. It is the end node too: it counts the open sinks."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    project = models.ForeignKey(Project, models.CASCADE)
    workflow = models.CharField(max_length=100, blank=True, help_text="Empty: a task on its own")
    version = models.CharField(max_length=40, blank=True)
    workflow_version_id = models.UUIDField(null=True, blank=True)
    status = models.CharField(
        max_length=10, default="running", choices=[(name, name) for name in RUN.statuses]
    )
    inputs = models.JSONField(default=dict)
    error = models.JSONField(null=True, blank=True, help_text="The first task's failure")
    priority = models.SmallIntegerField(default=5)
    task_count = models.IntegerField(default=1)
    open_sinks = models.IntegerField(default=1, help_text="Sinks of the present phase still open")
    phase = models.CharField(max_length=7, default="main", help_text="main, undo, finally or done")
    epilogue = models.BooleanField(
        default=False, help_text="It has `undo` or `finally`: its end is more than one statement"
    )
    parent_task_id = models.UUIDField(null=True, blank=True, help_text="The task it is the body of")
    depth = models.SmallIntegerField(default=0, help_text="Sub-runs above it")
    rerun_of = models.UUIDField(null=True, blank=True)
    concurrency = models.JSONField(null=True, blank=True, help_text="key, limit, on_conflict")
    limit_key = models.CharField(max_length=300, blank=True)
    fairness_key = models.CharField(
        max_length=100,
        blank=True,
        db_default="",
        help_text="Whose work it is: where several wait for the same agents, these take turns",
    )
    created_at = models.DateTimeField(db_default=Now(), editable=False)
    completed_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        constraints = [
            models.CheckConstraint(condition=Q(status__in=RUN.statuses), name="run_status"),
            models.CheckConstraint(condition=Q(open_sinks__gte=0), name="run_open_sinks"),
        ]
        indexes = [
            models.Index(fields=["project", "-id"], name="run_recent"),
            models.Index(fields=["workflow", "-id"], name="run_workflow"),
            models.Index(
                fields=["project", "-id"],
                name="run_bad",
                condition=Q(status__in=["failed", "cancelled"]),
            ),
            # The stuck-run detector and every question about live runs read only these rows.
            models.Index(
                fields=["id"],
                name="run_live",
                condition=Q(status__in=["created", "running", "paused", "cancelling"]),
            ),
            models.Index(
                fields=["project", "limit_key"],
                name="run_limited",
                condition=~Q(limit_key="")
                & Q(status__in=["created", "running", "paused", "cancelling"]),
            ),
            # Retention looks for the oldest ones that have ended.
            models.Index(
                fields=["status", "completed_at"],
                name="run_ended",
                condition=Q(completed_at__isnull=False),
            ),
            models.Index(
                fields=["rerun_of"], name="run_again", condition=Q(rerun_of__isnull=False)
            ),
            models.Index(
                fields=["parent_task_id"],
                name="run_parent",
                condition=Q(parent_task_id__isnull=False),
            ),
        ]

    def __str__(self) -> str:
        return f"{self.workflow or 'task'} {self.id}"


class Task(models.Model):
    """One unit of work; its id is the Celery task id."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    project = models.ForeignKey(Project, models.CASCADE, db_constraint=False)
    run = models.ForeignKey(Run, models.CASCADE, related_name="tasks")
    number = models.IntegerField(help_text="Topological: every successor has a higher one")
    key = models.CharField(max_length=200)
    uses = models.CharField(max_length=100, default="agent", help_text="The executor")
    capability = models.CharField(max_length=80, blank=True)
    requires = ArrayField(models.CharField(max_length=80), default=list, blank=True)
    queue = models.CharField(max_length=200)
    priority = models.SmallIntegerField(default=5, help_text="0-9, 9 is served first")
    status = models.CharField(
        max_length=9, default="pending", choices=[(name, name) for name in TASK.statuses]
    )
    attempt = models.IntegerField(default=1)
    losses = models.IntegerField(default=0, help_text="How often its agent died under it")
    retry = models.JSONField(default=dict, help_text="See tasks.retries.RetryPolicy")
    tried_before = models.IntegerField(
        default=0, help_text="Attempts of earlier iterations and of what is now caught"
    )
    timeout_s = models.FloatField(null=True, blank=True)
    heartbeat_s = models.FloatField(null=True, blank=True)
    queue_timeout_s = models.FloatField(null=True, blank=True)
    fence = models.IntegerField(
        default=0, help_text="Raised at each claim; an older one is refused"
    )
    join = models.CharField(
        max_length=11, default="all_success", choices=[(name, name) for name in JOINS]
    )
    pending = models.IntegerField(default=0, help_text="Dependencies that have not ended")
    needs_failed = models.IntegerField(default=0, help_text="Dependencies failed or cancelled")
    needs_skipped = models.IntegerField(default=0)
    in_degree = models.IntegerField(default=0)
    successors = ArrayField(models.IntegerField(), default=list)
    is_sink = models.BooleanField(default=False, help_text="Nothing waits for its end but the run")
    plain = models.BooleanField(
        default=True, help_text="Queued as soon as all its needs have completed; else decided"
    )
    direct = models.BooleanField(
        default=True, help_text="Its body is an agent's work without a limit: it may be queued"
    )
    phase = models.CharField(max_length=7, default="main", help_text="main, undo or finally")
    flow = models.JSONField(default=dict, blank=True, help_text="See tasks.flow.Flow")
    names = models.JSONField(
        default=dict, blank=True, help_text="What its expressions read beside tasks: item, …"
    )
    waits_for = models.CharField(max_length=8, blank=True, help_text="Why it is `waiting`")
    limit_key = models.CharField(max_length=300, blank=True)
    parent_id = models.UUIDField(null=True, blank=True, help_text="The for_each task it belongs to")
    item_index = models.IntegerField(null=True, blank=True)
    item_count = models.IntegerField(null=True, blank=True)
    next_item = models.IntegerField(default=0, help_text="The first item that has no row yet")
    items = models.JSONField(null=True, blank=True)
    items_ref = models.UUIDField(null=True, blank=True)
    reads = ArrayField(
        models.IntegerField(), default=list, help_text="Tasks whose results its inputs refer to"
    )
    uncarried = models.BooleanField(
        default=False, help_text="The canvas that should deliver it ended early"
    )
    inputs = models.JSONField(default=dict, help_text="`with`, expressions not yet evaluated")
    outputs_template = models.JSONField(null=True, blank=True)
    result = models.JSONField(null=True, blank=True)
    result_ref = models.UUIDField(null=True, blank=True, help_text="A Payload, for large results")
    outputs = models.JSONField(null=True, blank=True)
    error = models.JSONField(null=True, blank=True)
    for_agent = models.UUIDField(null=True, blank=True, help_text="Addressed to it; queued only")
    for_until = models.DateTimeField(
        null=True, blank=True, help_text="From then on anybody may take it"
    )
    routing = models.JSONField(null=True, blank=True, help_text="How its agent was chosen")
    session_id = models.UUIDField(null=True, blank=True)
    lease_until = models.DateTimeField(null=True, blank=True, help_text="Deadline of this attempt")
    wake_at = models.DateTimeField(null=True, blank=True)
    hinted_at = models.DateTimeField(null=True, blank=True)
    hints = models.SmallIntegerField(default=0)
    # Its place in its queue, while it is held back there; see tasks.transitions.turns.
    tenant = models.CharField(max_length=100, blank=True, db_default="", editable=False)
    tenant_turn = models.BigIntegerField(db_default=0, editable=False)
    run_turn = models.BigIntegerField(db_default=0, editable=False)
    created_at = models.DateTimeField(db_default=Now(), editable=False)
    ready_at = models.DateTimeField(null=True, blank=True)
    started_at = models.DateTimeField(null=True, blank=True)
    completed_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["run", "number"], name="task_number"),
            models.CheckConstraint(condition=Q(status__in=TASK.statuses), name="task_status"),
            models.CheckConstraint(condition=Q(priority__range=(0, 9)), name="task_priority"),
            models.CheckConstraint(condition=Q(pending__gte=0), name="task_pending"),
        ]
        indexes = [
            # The three scans of the reconciler, each over live rows only.
            models.Index(fields=["hinted_at"], name="task_queued", condition=Q(status="queued")),
            models.Index(
                fields=["lease_until"], name="task_running", condition=Q(status="running")
            ),
            models.Index(
                fields=["wake_at"],
                name="task_waiting",
                condition=Q(status__in=["waiting", "retrying"]),
            ),
            # Released by what it needs, but only `tasks.deciding` can say how it goes on.
            models.Index(
                fields=["run", "number"],
                name="task_undecided",
                condition=(Q(status="pending") & (Q(pending=0) | Q(join="any")))
                | Q(status="cancelled", waits_for="needs"),
            ),
            models.Index(
                fields=["ready_at"],
                name="task_queue_timeout",
                condition=Q(status="queued", queue_timeout_s__isnull=False),
            ),
            models.Index(
                fields=["project", "waits_for"], name="task_waits", condition=Q(status="waiting")
            ),
            # Whoever was cancelled while it ran and has not let go yet.
            models.Index(
                fields=["lease_until"],
                name="task_to_force",
                condition=Q(status__in=["cancelled", "waiting"], lease_until__isnull=False),
            ),
            models.Index(
                fields=["project", "limit_key"],
                name="task_limited",
                condition=~Q(limit_key="")
                & (
                    Q(status__in=["queued", "running", "waiting"])
                    | Q(status="cancelled", lease_until__isnull=False)
                ),
            ),
            models.Index(
                fields=["result_ref"], name="task_payload", condition=Q(result_ref__isnull=False)
            ),
            models.Index(
                fields=["items_ref"], name="task_items_ref", condition=Q(items_ref__isnull=False)
            ),
            # Claims by polling agents, in the order that is promised: priority, then age.
            models.Index(
                fields=["project", "capability", "-priority", "ready_at"],
                name="task_poll",
                condition=Q(status="queued"),
            ),
            *ITEMS,
            *TURNS,
            # END-SESSION and "busy" look up what a session holds.
            models.Index(fields=["session_id"], name="task_held", condition=Q(status="running")),
            models.Index(fields=["project", "-id"], name="task_recent"),
            # Lists of what went wrong: few rows of many, and written only then.
            models.Index(
                fields=["project", "-id"],
                name="task_bad",
                condition=Q(status__in=["failed", "cancelled"]),
            ),
        ]

    def __str__(self) -> str:
        return f"{self.key} {self.id}"


class Attempt(models.Model):
    """A try of a task that did not complete: it failed, or its agent was lost.

    The current try is read from the task's own row, so ordinary progress writes nothing here.
    """

    task = models.ForeignKey(Task, models.CASCADE, related_name="attempts")
    number = models.IntegerField()
    fence = models.IntegerField()
    outcome = models.CharField(max_length=10, help_text="failed, lost, timeout or cancelled")
    session_id = models.UUIDField(null=True, blank=True)
    error = models.JSONField(null=True, blank=True)
    started_at = models.DateTimeField(null=True, blank=True)
    ended_at = models.DateTimeField(db_default=Now())

    class Meta:
        indexes = [models.Index(fields=["task", "id"], name="attempt_task")]

    def __str__(self) -> str:
        return f"attempt {self.number} of {self.task_id}: {self.outcome}"


class TaskLog(models.Model):
    """One line that an attempt logged; bounded for each attempt."""

    task = models.ForeignKey(Task, models.CASCADE, related_name="logs")
    attempt = models.IntegerField()
    at = models.DateTimeField(db_default=Now())
    stream = models.CharField(max_length=8, help_text="log, stdout, stderr or platform")
    text = models.TextField()

    class Meta:
        indexes = [models.Index(fields=["task", "attempt", "id"], name="log_attempt")]

    def __str__(self) -> str:
        return self.text[:80]


class TaskProgress(models.Model):
    """How far a task's attempt is, as its agent said last; apart, so that the task's row rests."""

    task = models.OneToOneField(Task, models.CASCADE, primary_key=True, related_name="progress")
    attempt = models.IntegerField()
    fraction = models.FloatField(null=True, blank=True, help_text="0 to 1; null: unknown")
    message = models.CharField(max_length=500, blank=True)
    updated_at = models.DateTimeField(db_default=Now())

    def __str__(self) -> str:
        return f"{self.task_id}: {self.fraction} {self.message}"


class Payload(models.Model):
    """A JSON document too large for a task's row."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    project = models.ForeignKey(Project, models.CASCADE)
    content = models.BinaryField(help_text="UTF-8 JSON, compressed with zlib")
    size = models.IntegerField(help_text="Bytes before compression")
    created_at = models.DateTimeField(db_default=Now(), editable=False)

    def __str__(self) -> str:
        return f"{self.size} bytes {self.id}"


class Signal(models.Model):
    """Something that was told to a run from outside; kept until a task takes it."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    run = models.ForeignKey(Run, models.CASCADE, related_name="signals")
    name = models.CharField(max_length=100)
    payload = models.JSONField(null=True, blank=True)
    sent_by = models.CharField(max_length=150, blank=True)
    created_at = models.DateTimeField(db_default=Now(), editable=False)
    taken_by = models.UUIDField(null=True, blank=True, help_text="The task that took it")

    class Meta:
        indexes = [
            models.Index(
                fields=["run", "name", "id"],
                name="signal_open",
                condition=Q(taken_by__isnull=True),
            )
        ]

    def __str__(self) -> str:
        return f"{self.name} to {self.run_id}"


class RateWindow(models.Model):
    """The last starts under one key, reserved ones included: a sliding window, exact."""

    project = models.ForeignKey(Project, models.CASCADE)
    key = models.CharField(max_length=300)
    starts = ArrayField(models.DateTimeField(), default=list)
    per_s = models.FloatField(default=31 * 86400.0, help_text="How long a start counts")

    class Meta:
        constraints = [models.UniqueConstraint(fields=["project", "key"], name="rate_key")]

    def __str__(self) -> str:
        return self.key


class Pause(models.Model):
    """While this row exists, nothing is claimed of a workflow, or (empty) of the whole project."""

    project = models.ForeignKey(Project, models.CASCADE)
    workflow = models.CharField(max_length=100, blank=True)
    reason = models.CharField(max_length=300, blank=True)
    paused_by = models.CharField(max_length=150, blank=True)
    created_at = models.DateTimeField(db_default=Now(), editable=False)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["project", "workflow"], name="pause_once")]

    def __str__(self) -> str:
        return self.workflow or "everything"
