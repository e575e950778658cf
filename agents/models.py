"""Agents, their sessions, the hosts that run them and the queues that reach them."""

from __future__ import annotations

from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models.functions import Now

from agents.routing import STRATEGIES
from agents.states import AGENT, KINDS
from opscore.breaker import STATES, Rule
from opscore.ids import uuid7
from opscore.models import Project


class Host(models.Model):
    """A machine with a supervisor, and the agent specs that its own file offers."""

    project = models.ForeignKey(Project, models.CASCADE)
    name = models.CharField(max_length=100)
    specs = models.JSONField(default=dict, help_text="Spec name -> kind, capabilities, labels")
    pid = models.IntegerField(null=True)
    carries = models.IntegerField(
        null=True,
        blank=True,
        help_text="Agents that its supervisor can have at once; empty: any number",
    )
    seen_at = models.DateTimeField(db_default=Now())

    class Meta:
        constraints = [models.UniqueConstraint(fields=["project", "name"], name="host_once")]

    def __str__(self) -> str:
        return self.name


class Pool(models.Model):
    """How many agents of one spec a host keeps, where that differs from what its file says."""

    host = models.ForeignKey(Host, models.CASCADE, related_name="pools")
    spec = models.CharField(max_length=100, help_text="Name in the host's file")
    replicas = models.IntegerField(
        null=True, blank=True, help_text="What an operator asked for; empty: the file decides"
    )
    autoscale = models.JSONField(
        null=True,
        blank=True,
        help_text="The rule that an operator asked for: min, max, queue_wait_s",
    )
    scaled = models.IntegerField(
        null=True, blank=True, help_text="Present size by the autoscale rule in force"
    )
    changed_at = models.DateTimeField(db_default=Now(), editable=False)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["host", "spec"], name="pool_once")]

    def __str__(self) -> str:
        return f"{self.spec} on {self.host.name}"


class Agent(models.Model):
    """A registered worker with capabilities; the desired state that a supervisor makes true."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    project = models.ForeignKey(Project, models.CASCADE)
    name = models.CharField(max_length=100)
    kind = models.CharField(max_length=10, choices=[(kind, kind) for kind in KINDS])
    spec = models.CharField(max_length=100, blank=True, help_text="Name in the host's file")
    host = models.CharField(max_length=100, blank=True, help_text="Host that runs it")
    capabilities = ArrayField(models.CharField(max_length=80), default=list, blank=True)
    labels = ArrayField(models.CharField(max_length=80), default=list, blank=True)
    replica = models.IntegerField(
        null=True, blank=True, help_text="Its number, where the host's file started it"
    )
    desired = models.CharField(
        max_length=8, default="running", choices=[("running", "running"), ("stopped", "stopped")]
    )
    paused = models.BooleanField(
        default=False, db_default=False, help_text="It takes nothing new and finishes what it has"
    )
    concurrency = models.IntegerField(
        null=True, blank=True, help_text="Tasks that it has at once; empty: as many as it takes"
    )
    places = models.SmallIntegerField(
        null=True,
        blank=True,
        editable=False,
        help_text="Tasks that its circuit breaker lets it have at once; empty: no limit",
    )
    generation = models.IntegerField(default=1, help_text="Raised to ask for a restart")
    status = models.CharField(
        max_length=12, default="initializing", choices=[(name, name) for name in AGENT.statuses]
    )
    reason = models.TextField(blank=True, help_text="Why it is in this status")
    restarts = models.IntegerField(default=0, help_text="Restarts after crashes, ever")
    created_at = models.DateTimeField(db_default=Now(), editable=False)
    changed_at = models.DateTimeField(db_default=Now(), editable=False)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["project", "name"], name="agent_once"),
            models.CheckConstraint(
                condition=models.Q(status__in=AGENT.statuses), name="agent_status"
            ),
        ]

    def __str__(self) -> str:
        return self.name


class AgentSession(models.Model):
    """One life of an agent: from a process start or a registration to its end."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    project = models.ForeignKey(Project, models.CASCADE)
    agent = models.ForeignKey(Agent, models.CASCADE, related_name="sessions")
    host = models.CharField(max_length=100, blank=True)
    pid = models.IntegerField(null=True, blank=True)
    generation = models.IntegerField(default=1)
    queues = ArrayField(
        models.CharField(max_length=200),
        default=list,
        blank=True,
        help_text="Celery queues that it consumes; empty for agents that poll",
    )
    started_at = models.DateTimeField(db_default=Now())
    ready_at = models.DateTimeField(null=True, blank=True)
    seen_at = models.DateTimeField(db_default=Now())
    beat_at = models.DateTimeField(
        null=True, blank=True, help_text="Last heartbeat of its program; a claim is none"
    )
    ended_at = models.DateTimeField(null=True, blank=True)
    end_reason = models.CharField(max_length=200, blank=True)
    slots = models.IntegerField(
        default=1, db_default=1, help_text="Tasks of its Celery queues that it runs at once"
    )
    claims = models.IntegerField(
        default=0, db_default=0, help_text="Tasks taken over HTTP by an agent of a supervisor"
    )
    max_claims = models.IntegerField(
        null=True, blank=True, help_text="Tasks after which it gets no more: it is recycled"
    )
    condemned = models.CharField(
        max_length=200, blank=True, help_text="Why its supervisor must kill it; empty: it need not"
    )

    class Meta:
        constraints = [
            # An index of live sessions too, and not by seen_at: a beat then rewrites no entry.
            models.UniqueConstraint(
                fields=["agent"],
                name="one_live_session",
                condition=models.Q(ended_at__isnull=True),
            )
        ]
        indexes = [models.Index(fields=["agent", "-started_at"], name="session_agent")]

    def __str__(self) -> str:
        return f"{self.agent.name} since {self.started_at:%F %T}"


class AgentUsage(models.Model):
    """What an agent's processes use; a table of its own, so that samples rewrite nothing wide."""

    agent = models.OneToOneField(Agent, models.CASCADE, primary_key=True, related_name="usage")
    memory = models.BigIntegerField(help_text="Resident bytes of the process and all it started")
    cpu_percent = models.FloatField(help_text="Of one core, since the sample before")
    sampled_at = models.DateTimeField(
        db_default=Now(), help_text="Of the last sample that differed from the one before"
    )

    def __str__(self) -> str:
        return f"{self.memory} bytes, {self.cpu_percent:.0f} % CPU"


class AgentOutput(models.Model):
    """The end of what an agent wrote to stdout and stderr, when somebody asked or it ended."""

    agent = models.OneToOneField(Agent, models.CASCADE, primary_key=True, related_name="output")
    text = models.TextField(blank=True)
    asked_at = models.DateTimeField(null=True)
    written_at = models.DateTimeField(null=True)

    def __str__(self) -> str:
        return f"output of {self.agent.name}"


class Endpoint(models.Model):
    """Where an agent of kind http takes its tasks."""

    agent = models.OneToOneField(Agent, models.CASCADE, related_name="endpoint")
    url = models.CharField(max_length=2000)
    health_path = models.CharField(max_length=500, blank=True)
    timeout_s = models.FloatField(default=300, help_text="How long an answer may take")
    nonce = models.CharField(max_length=32, help_text="Its secret is made from this")

    def __str__(self) -> str:
        return self.url


class Queue(models.Model):
    """A Celery queue of tasks that require labels: one capability plus one set of them.

    The queue of a bare capability needs no row: every agent that has the capability serves it.
    """

    name = models.CharField(max_length=200, primary_key=True)
    project = models.ForeignKey(Project, models.CASCADE)
    capability = models.CharField(max_length=80)
    labels = ArrayField(models.CharField(max_length=80), default=list, blank=True)

    class Meta:
        indexes = [models.Index(fields=["project", "capability"], name="queue_capability")]

    def __str__(self) -> str:
        return self.name


class Route(models.Model):
    """How the agent of a capability's tasks is chosen; without a row the pull decides."""

    project = models.ForeignKey(Project, models.CASCADE)
    capability = models.CharField(max_length=80)
    strategy = models.CharField(max_length=12, choices=[(name, name) for name in STRATEGIES])
    weights = models.JSONField(
        default=dict, blank=True, help_text="Agent or label -> 1 to 100, for `weighted`"
    )
    changed_at = models.DateTimeField(db_default=Now(), editable=False)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["project", "capability"], name="route_once")]

    def __str__(self) -> str:
        return f"{self.capability}: {self.strategy}"


class Breaker(models.Model):
    """A circuit breaker of an agent or of a resource; `opscore.breaker` is its rule."""

    project = models.ForeignKey(Project, models.CASCADE)
    kind = models.CharField(max_length=8, choices=[("agent", "agent"), ("resource", "resource")])
    name = models.CharField(max_length=100, help_text="Of the agent, or the word in `resource`")
    state = models.CharField(
        max_length=9, default="closed", choices=[(state, state) for state in STATES]
    )
    since = models.DateTimeField(db_default=Now(), help_text="When this state began")
    until = models.DateTimeField(
        null=True, blank=True, help_text="When a probe is let through; empty: when it is closed"
    )
    window_at = models.DateTimeField(null=True, blank=True, help_text="Since when it counts")
    calls = models.IntegerField(default=0, help_text="Attempts of the window")
    failures = models.IntegerField(default=0)
    places = models.SmallIntegerField(default=0, help_text="Half open: attempts at once")
    openings = models.IntegerField(default=0, help_text="Openings since it was closed last")
    reason = models.CharField(max_length=300, blank=True)
    changed_by = models.CharField(max_length=150, blank=True, help_text="Empty: by itself")
    threshold = models.FloatField(default=Rule().threshold, db_default=Rule().threshold)
    min_calls = models.IntegerField(default=Rule().min_calls, db_default=Rule().min_calls)
    window_s = models.FloatField(default=Rule().window_s, db_default=Rule().window_s)
    cooldown_s = models.FloatField(default=Rule().cooldown_s, db_default=Rule().cooldown_s)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["project", "kind", "name"], name="breaker_once"),
            models.CheckConstraint(condition=models.Q(state__in=STATES), name="breaker_state"),
        ]

    def __str__(self) -> str:
        return f"{self.kind} {self.name}"
