"""Retry decisions: a pure rule, without a database."""

from __future__ import annotations

import json
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.retries import GiveUp, Retry, RetryPolicy, concerns, decide

TYPES = st.sampled_from(["timeout", "http_404", "http_500", "expression", ""])
PATTERNS = st.lists(st.sampled_from(["timeout", "http_*", "http_404", "*"]), max_size=2).map(tuple)
POLICIES = st.builds(
    RetryPolicy,
    limit=st.integers(0, 5),
    initial_s=st.floats(0, 100),
    factor=st.floats(1, 10),
    max_s=st.floats(0, 1_000),
    jitter=st.sampled_from(["full", "none"]) | st.floats(0, 1),
    on=PATTERNS,
    unless=PATTERNS,
    deadline_s=st.none() | st.floats(0, 1_000),
)


@given(POLICIES, st.integers(1, 8), TYPES, st.floats(0, 2_000), st.randoms())
def test_every_retry_keeps_to_its_policy(
    policy: RetryPolicy, attempt: int, kind: str, age_s: float, rng: Random
) -> None:
    verdict = decide(policy, attempt=attempt, error={"type": kind}, rng=rng, age_s=age_s)
    if isinstance(verdict, Retry):
        ceiling = min(policy.max_s, policy.initial_s * policy.factor ** (attempt - 1))
        assert attempt <= policy.limit
        assert 0 <= verdict.delay_s <= ceiling * (1 + 1e-9)
        assert policy.deadline_s is None or age_s + verdict.delay_s <= policy.deadline_s
        assert concerns({"type": kind}, on=policy.on, unless=policy.unless)


@given(POLICIES)
def test_a_policy_stands_in_a_row_as_json(policy: RetryPolicy) -> None:
    assert RetryPolicy.from_dict(json.loads(json.dumps(policy.as_dict()))) == policy


def test_a_row_of_an_older_version_is_read() -> None:
    assert RetryPolicy.from_dict({"limit": 2, "max_s": 9.0, "colour": 1}) == RetryPolicy(
        limit=2, max_s=9.0
    )


@pytest.mark.parametrize(
    ("kind", "on", "unless", "expected"),
    [
        ("timeout", (), (), True),
        ("timeout", ("timeout",), (), True),
        ("timeouts", ("timeout",), (), False),
        ("http_500", ("http_*",), (), True),
        ("http_404", ("http_*",), ("http_404",), False),
        ("anything", ("*",), (), True),
        ("", ("timeout",), (), False),
        ("expression", (), ("expr*",), False),
    ],
)
def test_errors_are_chosen_by_type(
    kind: str, on: tuple[str, ...], unless: tuple[str, ...], expected: bool
) -> None:
    error = {"type": kind}
    policy = RetryPolicy(limit=1, on=on, unless=unless)
    assert concerns(error, on=on, unless=unless) is expected
    assert isinstance(decide(policy, attempt=1, error=error, rng=Random(1)), Retry) is expected


@pytest.mark.parametrize(
    ("jitter", "low", "high"), [("full", 0, 8), ("none", 8, 8), (0.25, 6, 8), (0.0, 8, 8)]
)
def test_jitter_is_the_part_of_the_delay_that_chance_decides(
    jitter: Any, low: float, high: float
) -> None:
    policy = RetryPolicy(limit=9, initial_s=2, factor=2, jitter=jitter)
    rng = Random(7)
    verdicts = [decide(policy, attempt=3, error={}, rng=rng) for _ in range(500)]
    delays = [verdict.delay_s for verdict in verdicts if isinstance(verdict, Retry)]
    assert len(delays) == 500
    assert low <= min(delays) <= low + 0.1
    assert high - 0.1 <= max(delays) <= high


def test_no_attempt_begins_after_the_deadline() -> None:
    policy = RetryPolicy(limit=9, initial_s=10, factor=1, jitter="none", deadline_s=60)
    assert decide(policy, attempt=1, error={}, rng=Random(1), age_s=50) == Retry(10)
    assert decide(policy, attempt=1, error={}, rng=Random(1), age_s=50.1) == GiveUp()
    assert decide(policy, attempt=1, error={"retryable": False}, rng=Random(1)) == GiveUp()
