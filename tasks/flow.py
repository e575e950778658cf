"""What a task does beyond one plain attempt, as values that stand in its row as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from typing import Any, ClassVar, Self

#: When a task may run, judged once what it needs has ended.
JOINS = ("all_success", "none_failed", "all_done", "any")
ON_ITEM_FAILURE = ("fail_fast", "fail_at_end", "continue")
ON_CONFLICT = ("queue", "reject", "cancel_oldest")


class Value:
    """A frozen dataclass that is kept as JSON without its defaults."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    def as_dict(self) -> dict[str, Any]:
        """Return what differs from the defaults; `from_dict` reads it back, equal."""
        said = {}
        for each in fields(self):
            value = getattr(self, each.name)
            default = (
                each.default_factory() if each.default_factory is not MISSING else each.default
            )
            if value != default:
                said[each.name] = value.as_dict() if isinstance(value, Value) else value
        return {
            name: list(value) if isinstance(value, tuple) else value for name, value in said.items()
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Read what `as_dict` wrote; unknown keys of a newer version are ignored."""
        known = {each.name for each in fields(cls)}
        said = {name: value for name, value in data.items() if name in known}
        return cls(
            **{
                name: tuple(value) if name in _TUPLES else _nested(name, value)
                for name, value in said.items()
            }
        )


@dataclass(frozen=True, slots=True)
class Repeat(Value):
    """A loop around the task: done again until a condition holds."""

    until: str = ""
    """An expression over `result` and `iteration`; empty: always `max` times."""
    max: int = 100
    """Iterations at most; not done by then: the task fails with type `repeat_limit`."""
    delay_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Catch(Value):
    """What happens instead of the task's final failure."""

    on: tuple[str, ...] = ()
    """Error types that are caught; empty: all."""
    unless: tuple[str, ...] = ()
    capability: str = ""
    """Who makes the result instead; empty: `result` is the result."""
    requires: tuple[str, ...] = ()
    inputs: Mapping[str, Any] = field(default_factory=dict)
    """Template; may read `error` (type, message)."""
    result: Any = None
    """Template of the result when no capability is named; may read `error`."""


@dataclass(frozen=True, slots=True)
class Undo(Value):
    """How a completed task is taken back when its run fails or is cancelled."""

    capability: str = ""
    requires: tuple[str, ...] = ()
    inputs: Mapping[str, Any] = field(default_factory=dict)
    """Template; may read the task's own `result`."""


@dataclass(frozen=True, slots=True)
class Concurrency(Value):
    """At most `limit` live ones of the same key."""

    key: str = ""
    """Template, rendered to a text when the task or run wants to start."""
    limit: int = 1
    on_conflict: str = "queue"


@dataclass(frozen=True, slots=True)
class RateLimit(Value):
    """At most `limit` starts of the same key in any window of `per_s` seconds."""

    key: str = ""
    limit: int = 1
    per_s: float = 1.0


@dataclass(frozen=True, slots=True)
class Flow(Value):
    """Everything about a task that the database decides step by step; the default: nothing."""

    condition: str = ""
    """`if`: CEL, without or with `${{ }}`; not true: the task is skipped."""
    for_each: Any = None
    """Template of a list: the task is done once for each item."""
    max_parallel: int = 0
    """Items at once; 0: all."""
    on_item_failure: str = "fail_fast"
    repeat: Repeat | None = None
    catch: Catch | None = None
    undo: Undo | None = None
    concurrency: Concurrency | None = None
    rate_limit: RateLimit | None = None
    resources: tuple[str, ...] = ()
    """What it uses outside: each name has a circuit breaker."""
    queue_timeout_s: float | None = None
    """Longest wait for an agent, from ready to claimed."""
    heartbeat_s: float | None = None
    """Longest silence of a running attempt."""
    prefers: Mapping[str, int] = field(default_factory=dict)
    """Label -> how much an agent with it is wanted, -100 to 100; it never holds the task up."""
    sticky: str = ""
    """Template of a key: its tasks go to the same agent while that lives."""
    block: Mapping[str, Any] | None = None
    """The body is this definition (`tasks`, `outputs`), run as a sub-run."""

    @property
    def wishes(self) -> bool:
        """Tell whether the task chooses among the agents that may do it."""
        return bool(self.prefers or self.sticky)

    @property
    def is_limited(self) -> bool:
        """Tell whether something beside its agents says when it may start."""
        return bool(self.concurrency or self.rate_limit or self.resources)


_NESTED: dict[str, type[Value]] = {
    "repeat": Repeat,
    "catch": Catch,
    "undo": Undo,
    "concurrency": Concurrency,
    "rate_limit": RateLimit,
}
_TUPLES = {"on", "unless", "requires", "resources"}


def _nested(name: str, value: Any) -> Any:
    kind = _NESTED.get(name)
    return kind.from_dict(value) if kind and isinstance(value, Mapping) else value
