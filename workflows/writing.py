"""Parts of a definition as canonical JSON: durations in seconds, defaults left out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tasks.flow import Catch, Concurrency, Flow, RateLimit, Repeat, Undo
from tasks.retries import RetryPolicy


def without_defaults(
    usual: Mapping[str, Any], optional: Mapping[str, Any | None]
) -> dict[str, Any]:
    """Join both: of `usual` what is not empty, of `optional` what is not None."""
    said = {key: value for key, value in usual.items() if value not in (None, "", [], {})}
    return said | {key: value for key, value in optional.items() if value is not None}


def retry_said(policy: RetryPolicy) -> dict[str, Any]:
    """Write a policy as `retry`; {} for none."""
    if policy == RetryPolicy():
        return {}
    backoff = {
        "initial": policy.initial_s,
        "factor": policy.factor,
        "max": policy.max_s,
        "jitter": policy.jitter,
    }
    return without_defaults(
        {"on": list(policy.on), "unless": list(policy.unless)},
        {"limit": policy.limit, "backoff": backoff, "deadline": policy.deadline_s},
    )


def timeouts_said(run_s: float | None, flow: Flow) -> float | dict[str, float] | None:
    """Write the time limits as `timeout`."""
    limits = {"queue": flow.queue_timeout_s, "run": run_s, "heartbeat": flow.heartbeat_s}
    said = {key: limit for key, limit in limits.items() if limit is not None}
    return run_s if said.keys() <= {"run"} else said


def flow_said(flow: Flow) -> dict[str, Any]:
    """Write what a flow says under the keys of a task; None for what it does not say."""
    return {
        "if": flow.condition or None,
        "for_each": flow.for_each,
        "max_parallel": flow.max_parallel or None,
        "on_item_failure": None
        if flow.on_item_failure == Flow().on_item_failure
        else flow.on_item_failure,
        "prefers": dict(flow.prefers) or None,
        "sticky": flow.sticky or None,
        "repeat": flow.repeat and _repeat_said(flow.repeat),
        "catch": flow.catch and _catch_said(flow.catch),
        "undo": flow.undo and _undo_said(flow.undo),
        "concurrency": flow.concurrency and concurrency_said(flow.concurrency),
        "rate_limit": flow.rate_limit and _rate_limit_said(flow.rate_limit),
        "resource": list(flow.resources) or None,
    }


def _repeat_said(repeat: Repeat) -> dict[str, Any]:
    return without_defaults(
        {"until": repeat.until, "delay": repeat.delay_s or None}, {"max": repeat.max}
    )


def _catch_said(catch: Catch) -> dict[str, Any]:
    return without_defaults(
        {
            "on": list(catch.on),
            "unless": list(catch.unless),
            "capability": catch.capability,
            "requires": list(catch.requires),
            "with": dict(catch.inputs),
        },
        {"result": catch.result},
    )


def _undo_said(undo: Undo) -> dict[str, Any]:
    return without_defaults(
        {
            "capability": undo.capability,
            "requires": list(undo.requires),
            "with": dict(undo.inputs),
        },
        {},
    )


def concurrency_said(concurrency: Concurrency) -> dict[str, Any]:
    """Write a limit of what is live at once."""
    return {
        "key": concurrency.key,
        "limit": concurrency.limit,
        "on_conflict": concurrency.on_conflict,
    }


def _rate_limit_said(rate: RateLimit) -> dict[str, Any]:
    return {"key": rate.key, "limit": rate.limit, "per": rate.per_s}
