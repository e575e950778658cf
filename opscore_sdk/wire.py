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
class Agent(Wire):
    """A registered agent."""

    id: str
    name: str
    kind: str
    status: str
    """`busy` while an active agent has running tasks."""
    capabilities: list[str] = field(default_factory=list)
    labels: list[str] = field(default_factory=list)
    reason: str = ""
    """Why it is in this status."""
    host: str = ""
    running_tasks: int = 0
    restarts: int = 0
    paused: bool = False
    """It takes nothing new; what it had it finishes."""

    @property
    def is_at_hand(self) -> bool:
        """Whether it takes tasks now, or will as soon as it has started."""
        return not self.paused and self.status not in AGENT_AWAY


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
    attempts: list[Mapping[str, Any]] = field(default_factory=list)

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

    needs: list[str] = field(default_factory=list)
    successors: list[str] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class Run(Wire):
    """One execution of a workflow; `tasks` and `outputs` only where one run was asked for."""

    id: str
    status: str
    workflow: str = ""
    version: str = ""
    priority: int = 5
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


def _value(name: str, value: Any) -> Any:
    if name.endswith("_at") and isinstance(value, str):
        return datetime.fromisoformat(value)
    return value
