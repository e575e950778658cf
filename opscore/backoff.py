"""Exponential backoff with jitter, as a pure function."""

from __future__ import annotations

from random import Random


def backoff(
    attempt: int,
    *,
    initial_s: float,
    factor: float,
    max_s: float,
    rng: Random,
    jitter: float = 1.0,
) -> float:
    """Return the seconds to wait after failed attempt number `attempt` (from 1).

    The ceiling is min(max_s, initial_s * factor ** (attempt - 1)); `jitter` is the part of it
    that chance decides: 0 waits the ceiling, 1 anything from 0 to it ("full jitter" of the AWS
    Architecture Blog, "Exponential Backoff And Jitter").
    """
    # The exponent is capped because a float overflows at about 2 ** 1024.
    ceiling = min(max_s, initial_s * factor ** min(attempt - 1, 64))
    return rng.uniform(ceiling * (1 - jitter), ceiling)
