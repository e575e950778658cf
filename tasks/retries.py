"""When a failed attempt is tried again: a pure rule."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from random import Random
from typing import Any

from opscore.backoff import backoff

#: What the words for `jitter` mean, as a part of the delay.
JITTERS = {"full": 1.0, "none": 0.0}


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often and how late a task is tried again."""

    limit: int = 0
    """Retries after the first attempt; 0: none."""
    initial_s: float = 1.0
    factor: float = 2.0
    max_s: float = 300.0
    jitter: str | float = "full"
    """The part of a delay that chance decides: full, none, or a number from 0 to 1."""
    on: tuple[str, ...] = ()
    """Error types that are tried again, `name` or `prefix*`; empty: all."""
    unless: tuple[str, ...] = ()
    """Error types that are final."""
    deadline_s: float | None = None
    """No attempt begins later than this after the task first started."""

    def as_dict(self) -> dict[str, Any]:
        """Return the policy as it stands in a task's row; the default is {}."""
        if self == _NEVER:
            return {}
        return {**asdict(self), "on": list(self.on), "unless": list(self.unless)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> RetryPolicy:
        """Read what `as_dict` wrote; unknown keys of a newer version are ignored."""
        said = {name: data[name] for name in cls.__slots__ if name in data}
        return cls(**{name: _frozen(value) for name, value in said.items()})


_NEVER = RetryPolicy()


@dataclass(frozen=True, slots=True)
class Retry:
    """Try again, `delay_s` seconds from now."""

    delay_s: float


@dataclass(frozen=True, slots=True)
class GiveUp:
    """The failure is final."""


def decide(
    policy: RetryPolicy,
    *,
    attempt: int,
    error: Mapping[str, Any],
    rng: Random,
    age_s: float = 0.0,
) -> Retry | GiveUp:
    """Judge the failure of attempt number `attempt` (from 1): exponential backoff with jitter.

    An error that says `retryable: false` is final whatever the policy. `age_s` is the time
    since the task first started: when the next attempt would begin after the policy's
    deadline, there is none.
    """
    if attempt > policy.limit or error.get("retryable") is False:
        return GiveUp()
    if not concerns(error, on=policy.on, unless=policy.unless):
        return GiveUp()
    delay_s = _delay(policy, attempt, rng)
    if policy.deadline_s is not None and age_s + delay_s > policy.deadline_s:
        return GiveUp()
    return Retry(delay_s)


def concerns(
    error: Mapping[str, Any], *, on: Sequence[str] = (), unless: Sequence[str] = ()
) -> bool:
    """Tell whether an error's `type` is one of `on` (empty: any) and none of `unless`."""
    kind = str(error.get("type", ""))
    return (not on or _is_named(kind, on)) and not _is_named(kind, unless)


def _is_named(kind: str, patterns: Sequence[str]) -> bool:
    return any(
        kind.startswith(pattern[:-1]) if pattern.endswith("*") else kind == pattern
        for pattern in patterns
    )


def _delay(policy: RetryPolicy, attempt: int, rng: Random) -> float:
    jitter = policy.jitter
    return backoff(
        attempt,
        initial_s=policy.initial_s,
        factor=policy.factor,
        max_s=policy.max_s,
        jitter=JITTERS[jitter] if isinstance(jitter, str) else jitter,
        rng=rng,
    )


def _frozen(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
