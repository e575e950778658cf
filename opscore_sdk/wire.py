"""What the API answers, as frozen values; fields that a newer platform adds stay in `raw`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from datetime import datetime
from typing import Any, TypeVar

from opscore_sdk.errors import Problem

T = TypeVar("T", bound="Wire")

#: Statuses of runs and tasks that never change again.
RUN_ENDED = frozenset({"completed", "failed", "cancelled"})
TASK_ENDED = RUN_ENDED | {"skipped"}
#: Fields that hold a time without saying so by their ending.
_TIMES = frozenset({"at", "until", "since", "expected_start"})
#: Statuses of agents that are there, or should be: all but `terminated`.
AGENT_THERE = (
    "initializing",
    "active",
    "busy",
    "draining",
    "restarting",
    "unresponsive",
    "error",
)
#: Statuses of agents that nobody should wait for.
AGENT_AWAY = frozenset({"draining", "error", "terminated"})


@dataclass(frozen=True, kw_only=True)
class Wire:
    """Something that the API answered."""

    raw: Mapping[str, Any] = field(repr=False, default_factory=dict)
    """The JSON object as it came."""

    @classmethod
    def read(cls: type[T], data: Mapping[str, Any]) -> T:
        """Take the known fields of an answer; texts of times become datetimes."""
        known = {part.name for part in fields(cls)} - {"raw"}
        values = {name: _value(name, data[name]) for name in known if name in data}
        return cls(**values, raw=data)


@dataclass(frozen=True, kw_only=True)
class RegisteredAgent(Wire):
    """An agent as the platform knows it."""

    id: str
    name: str
    kind: str
    status: str
    """`busy` while an active agent has running tasks."""
    capabilities: list[str] = field(default_factory=list)
    labels: list[str] = field(default_factory=list)
    concurrency: int | None = None
    """Tasks that it has at once; None: as many as it claims."""
    reason: str = ""
    """Why it is in this status."""
    host: str = ""
    running_tasks: int = 0
    restarts: int = 0
    usage: Mapping[str, Any] | None = None
    """`memory_bytes` and `cpu_percent` of a supervised agent's processes."""
    paused: bool = False
    """It takes nothing new; what it had it finishes."""

    @property
    def is_at_hand(self) -> bool:
        """Whether it takes tasks now, or will as soon as it has started."""
        return not self.paused and self.status not in AGENT_AWAY


@dataclass(frozen=True, kw_only=True)
class Attempt(Wire):
    """A try of a task."""

    number: int
    outcome: str
    """failed, lost, timeout, cancelled or repeated; the last one may be running or completed."""
    session_id: str | None = None
    error: Mapping[str, Any] | None = None
    started_at: datetime | None = None
    ended_at: datetime | None = None


@dataclass(frozen=True, kw_only=True)
class Progress(Wire):
    """How far an attempt is, as its executor said."""

    attempt: int = 1
    fraction: float | None = None
    """0 to 1; None: unknown."""
    message: str = ""
    updated_at: datetime | None = None


@dataclass(frozen=True, kw_only=True)
class Submitted(Wire):
    """A task that was submitted together with others."""

    id: str
    run_id: str
    key: str


@dataclass(frozen=True, kw_only=True)
class Task(Wire):
    """A task; `result`, `outputs`, `inputs` and `attempts` only where one task was asked for."""

    id: str
    key: str
    status: str
    run_id: str = ""
    capability: str = ""
    attempt: int = 1
    losses: int = 0
    """How often its agent died under it."""
    priority: int = 5
    agent: Mapping[str, Any] | None = None
    error: Mapping[str, Any] | None = None
    created_at: datetime | None = None
    ready_at: datetime | None = None
    started_at: datetime | None = None
    completed_at: datetime | None = None
    inputs: Any = None
    outputs: Any = None
    result: Any = None
    attempts: tuple[Attempt, ...] = ()
    """The tries that did not complete, oldest first."""
    progress: Progress | None = None
    """What the present or last attempt said about how far it is."""

    @classmethod
    def read(cls: type[T], data: Mapping[str, Any]) -> T:
        """Take the known fields, attempts as `Attempt`."""
        attempts = tuple(Attempt.read(row) for row in data.get("attempts") or ())
        told = data.get("progress")
        progress = Progress.read(told) if told else None
        found = super().read({**data, "attempts": attempts, "progress": progress})
        return replace(found, raw=data)

    @property
    def has_ended(self) -> bool:
        """Whether the status never changes again."""
        return self.status in TASK_ENDED

    @property
    def agent_name(self) -> str:
        """Name of the agent that has or had it; '' before the first attempt."""
        return str((self.agent or {}).get("name", ""))


@dataclass(frozen=True, kw_only=True)
class RunTask(Task):
    """A task inside its run's graph."""

    uses: str = "agent"
    """agent, wait, signal, approval, block, or a workflow."""
    waits_for: str = ""
    """What one that is waiting waits for: a time, a signal, items, a run of its own."""
    needs: list[str] = field(default_factory=list)
    successors: list[str] = field(default_factory=list)

    @property
    def starts_runs(self) -> bool:
        """Whether its body is a run of its own, or would be."""
        return self.uses == "block" or self.uses.startswith("workflow")


@dataclass(frozen=True, kw_only=True)
class Run(Wire):
    """One execution of a workflow; `tasks` and `outputs` only where one run was asked for."""

    id: str
    status: str
    workflow: str = ""
    version: str = ""
    priority: int = 5
    fairness_key: str = ""
    """Whose work it is."""
    task_count: int = 0
    inputs: Any = None
    outputs: Any = None
    error: Mapping[str, Any] | None = None
    created_at: datetime | None = None
    completed_at: datetime | None = None
    waits_for_place: Mapping[str, Any] | None = None
    """Why it is `created`: `key`, `limit`, `held_by` (ids of runs), `ahead` (how many)."""
    tasks: tuple[RunTask, ...] = ()
    """In topological order."""

    @classmethod
    def read(cls, data: Mapping[str, Any]) -> Run:
        """Take the known fields, tasks as `RunTask`."""
        tasks = tuple(RunTask.read(task) for task in data.get("tasks") or ())
        return replace(super().read({**data, "tasks": tasks}), raw=data)

    @property
    def has_ended(self) -> bool:
        """Whether the status never changes again."""
        return self.status in RUN_ENDED


@dataclass(frozen=True, kw_only=True)
class Workflow(Wire):
    """A workflow; `versions` and `definition` only where one was asked for."""

    id: str
    name: str
    description: str = ""
    latest: str = ""
    versions: list[Mapping[str, Any]] = field(default_factory=list)
    definition: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Uploaded(Wire):
    """The version that an upload made or found."""

    id: str
    """Of the workflow."""
    name: str
    version: str
    version_id: str = ""
    created: bool = False


@dataclass(frozen=True, kw_only=True)
class Valid(Wire):
    """What the platform found in a definition without problems."""

    name: str = ""
    tasks: int = 0
    warnings: tuple[Problem, ...] = ()
    """What is allowed and yet perhaps not meant, by line."""

    @classmethod
    def read(cls, data: Mapping[str, Any]) -> Valid:
        """Take the known fields, warnings as `Problem`."""
        warnings = tuple(map(Problem.read, data.get("warnings") or ()))
        return replace(super().read({**data, "warnings": warnings}), raw=data)


@dataclass(frozen=True, kw_only=True)
class Reason(Wire):
    """One thing that keeps a task where it is."""

    code: str
    """A word for programs: needs, paused, no_agent, all_busy, retry_at, …"""
    message: str
    until: datetime | None = None
    """When it ends by itself, if that is known."""


@dataclass(frozen=True, kw_only=True)
class Explanation(Wire):
    """Why a task is where it is."""

    task_id: str
    key: str
    status: str
    expected_start: datetime | None = None
    """An estimate, by the last durations of the task's capability."""

    @property
    def reasons(self) -> list[Reason]:
        """The reasons, in the order in which they count."""
        return [Reason.read(row) for row in self.raw["reasons"]]


@dataclass(frozen=True, kw_only=True)
class LogLine(Wire):
    """One line of an attempt's log."""

    id: int
    text: str
    stream: str = "log"
    """log, stdout, stderr or platform."""
    attempt: int = 1
    at: datetime | None = None


@dataclass(frozen=True, kw_only=True)
class Event(Wire):
    """Something that happened and that people may want to know later."""

    id: int
    kind: str
    at: datetime | None = None
    run_id: str | None = None
    task_id: str | None = None
    agent_id: str | None = None
    actor: str = ""
    data: Mapping[str, Any] | None = None


@dataclass(frozen=True, kw_only=True)
class Signal(Wire):
    """Something that was told to a run."""

    id: str
    name: str
    run_id: str = ""
    payload: Any = None
    sent_by: str = ""
    created_at: datetime | None = None
    taken_by: str | None = None
    """The task that took it."""


@dataclass(frozen=True, kw_only=True)
class Approval(Wire):
    """A task that waits for a person's decision."""

    task_id: str
    key: str = ""
    run_id: str = ""
    workflow: str = ""
    message: str = ""
    role: str = ""
    since: datetime | None = None
    expires_at: datetime | None = None


@dataclass(frozen=True, kw_only=True)
class PausedWorkflow(Wire):
    """A pause of a workflow, or with an empty name of everything."""

    workflow: str = ""
    reason: str = ""
    paused_by: str = ""
    created_at: datetime | None = None


@dataclass(frozen=True, kw_only=True)
class Schedule(Wire):
    """What starts runs of a workflow by the clock."""

    id: str
    name: str
    workflow: str = ""
    version: str | None = None
    cron: str | None = None
    every_s: int | None = None
    timezone: str = "UTC"
    inputs: Any = None
    priority: int | None = None
    fairness_key: str = ""
    catch_up: str = ""
    overlap: str = ""
    paused: bool = False
    next_at: datetime | None = None
    last_at: datetime | None = None
    next_times: tuple[datetime, ...] = ()
    """The next five slots; only where one schedule was asked for."""

    @classmethod
    def read(cls, data: Mapping[str, Any]) -> Schedule:
        """Take the known fields, texts of times as datetimes."""
        times = tuple(_value("at", text) for text in data.get("next_times") or ())
        return replace(super().read({**data, "next_times": times}), raw=data)


@dataclass(frozen=True, kw_only=True)
class Slot(Wire):
    """One moment of a schedule and what became of it."""

    id: int
    at: datetime | None = None
    cause: str = ""
    outcome: str = ""
    reason: str = ""
    run_id: str | None = None
    overlap: str = ""


@dataclass(frozen=True, kw_only=True)
class Backfilled(Wire):
    """What a backfill did."""

    slots: int = 0
    """Slots of the timetable in the range."""
    created: int = 0
    """Those that had no run and waited for none."""


def _value(name: str, value: Any) -> Any:
    if (name.endswith("_at") or name in _TIMES) and isinstance(value, str):
        # Python 3.10 does not read the Z.
        return datetime.fromisoformat(value.replace("Z", "+00:00"))
    return value
