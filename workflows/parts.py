"""The parts of a task that are maps of their own: retry, timeout, loops, limits, what undoes it."""

from __future__ import annotations

from typing import Any

from agents.routing import MAX_LIKING
from tasks.flow import ON_CONFLICT, Catch, Concurrency, RateLimit, Repeat, Undo
from tasks.retries import RetryPolicy
from workflows import values
from workflows.shapes import (
    CODE,
    DURATION,
    MAP,
    TEXT,
    TEXTS,
    Field,
    Shape,
    duration,
    nested,
    whole,
    words,
)
from workflows.values import MisfitError

MAX_RETRIES = 1_000
MAX_ITERATIONS = 10_000
MAX_SLOTS = 1_000_000

CAPABILITY = Field("capability", values.word, TEXT, "What the agent must offer.")
REQUIRES = Field("requires", values.words, TEXTS, "Labels that the agent must have.")
PREFERS = Field(
    "prefers",
    values.likings,
    {
        "anyOf": [
            TEXTS,
            {
                "type": "object",
                "maxProperties": values.MAX_LIKINGS,
                "additionalProperties": {
                    "type": "integer",
                    "minimum": -MAX_LIKING,
                    "maximum": MAX_LIKING,
                },
            },
        ]
    },
    "Labels that the agent should have, with weights -100 to 100; it never waits for one.",
)
STICKY = Field(
    "sticky", values.key_template, TEXT, "A key: its tasks go to one agent while that lives."
)
WITH = Field("inputs", values.mapping, MAP, "What it gets; `${{ }}` is evaluated at its start.")
_ON = Field("on", values.error_types, TEXTS, "Error types, `name` or `prefix*`; default: all.")
_UNLESS = Field("unless", values.error_types, TEXTS, "Error types that are left out.")


# ------------------------------------------------------------ retry and timeout
def _retry(said: dict[str, Any]) -> RetryPolicy:
    backoff = said.pop("backoff", {})
    if "limit" not in said:
        raise MisfitError("needs a `limit`: how often it is tried again")
    if backoff.keys() & said.keys():
        raise MisfitError("initial, factor and max stand under `backoff` or beside it, not in both")
    return RetryPolicy(**said, **backoff)


_FLAT = {
    "initial": duration("initial_s", "Longest delay before the first retry."),
    "factor": Field(
        "factor",
        values.number(1, values.MAX_FACTOR),
        {"type": "number", "minimum": 1, "maximum": values.MAX_FACTOR},
        "What each further delay is multiplied with.",
    ),
    "max": duration("max_s", "Longest delay of all."),
}
_JITTER = Field(
    "jitter",
    values.jitter,
    {"anyOf": [{"enum": ["full", "none"]}, {"type": "number", "minimum": 0, "maximum": 1}]},
    "The part of a delay that chance decides: full, none, or 0 to 1.",
)
_BACKOFF = Shape({**_FLAT, "jitter": _JITTER}, dict)
_LIMIT = whole("limit", 0, MAX_RETRIES, "Retries after the first attempt.")
RETRY = nested(
    "retry",
    Shape(
        {
            "limit": _LIMIT,
            "backoff": nested("backoff", _BACKOFF, "How long it waits before a retry."),
            "on": _ON,
            "unless": _UNLESS,
            "deadline": duration("deadline_s", "No retry begins later than this after the start."),
            **_FLAT,
        },
        _retry,
    ),
    "When a failed attempt is tried again.",
    _LIMIT,
    lambda limit: RetryPolicy(limit=limit),
)
_RUN = duration("timeout_s", "Longest time of one attempt.")
TIMEOUT = nested(
    "timeouts",
    Shape(
        {
            "queue": duration("queue_timeout_s", "Longest wait for an agent."),
            "run": _RUN,
            "heartbeat": duration("heartbeat_s", "Longest silence of a running attempt."),
        },
        dict,
    ),
    "What may take how long.",
    _RUN,
    lambda run_s: {"timeout_s": run_s},
)


# ------------------------------------------------------------ loops
def _repeat(said: dict[str, Any]) -> Repeat:
    if not said.keys() & {"until", "max"}:
        raise MisfitError("needs `until`, `max`, or both")
    return Repeat(**said)


_MAX = whole("max", 1, MAX_ITERATIONS, "Iterations at most; default 100.")
_UNTIL = Field("until", values.condition, CODE, "Ends the loop; reads `result` and `iteration`.")
_DELAY = Field("delay_s", values.pause, DURATION, "Pause between two iterations.")
REPEAT = nested(
    "repeat",
    Shape({"until": _UNTIL, "max": _MAX, "delay": _DELAY}, _repeat),
    "Done again until a condition holds.",
    _MAX,
    lambda times: Repeat(max=times),
)


# ------------------------------------------------------------ failure
def _catch(said: dict[str, Any]) -> Catch:
    if "capability" in said and "result" in said:
        raise MisfitError("say `capability` or `result`: who makes the result, or what it is")
    if "capability" not in said and said.keys() & {"inputs", "requires"}:
        raise MisfitError("`with` and `requires` belong to a `capability`")
    return Catch(**said)


def _undo(said: dict[str, Any]) -> Undo:
    if "capability" not in said:
        raise MisfitError("needs a `capability`: who takes the task back")
    return Undo(**said)


_BY_AN_AGENT = {"capability": CAPABILITY, "requires": REQUIRES, "with": WITH}
_RESULT = Field("result", values.anything, {}, "The result instead; may read `error`.")
CATCH = nested(
    "catch",
    Shape({"on": _ON, "unless": _UNLESS, **_BY_AN_AGENT, "result": _RESULT}, _catch),
    "What happens instead of its failure.",
)
UNDO = nested("undo", Shape(_BY_AN_AGENT, _undo), "How it is taken back when its run fails.")


# ------------------------------------------------------------ limits
def _rate_limit(said: dict[str, Any]) -> RateLimit:
    if "limit" not in said:
        raise MisfitError("needs a `limit`: how many starts `per` time")
    return RateLimit(**said)


_KEY = Field("key", values.text, TEXT, "Who shares the limit; a text, `${{ }}` allowed.")
_SLOTS = whole("limit", 1, MAX_SLOTS, "How many at once; default 1.")
_ON_CONFLICT = Field(
    "on_conflict",
    values.one_of(ON_CONFLICT),
    words(ON_CONFLICT),
    "What a further one does: wait, fail, or end the oldest.",
)
CONCURRENCY = nested(
    "concurrency",
    Shape(
        {"key": _KEY, "limit": _SLOTS, "on_conflict": _ON_CONFLICT},
        lambda said: Concurrency(**said),
    ),
    "At most `limit` at once of the same key.",
    _SLOTS,
    lambda limit: Concurrency(limit=limit),
)
_STARTS = whole("limit", 1, MAX_SLOTS, "How many starts in each window.")
_PER = duration("per_s", "The window; default 1s.")
RATE_LIMIT = nested(
    "rate_limit",
    Shape({"key": _KEY, "limit": _STARTS, "per": _PER}, _rate_limit),
    "At most `limit` starts `per` time.",
)
