"""What is asked of the platform, without asking it: retries and pages as plain generators.

A talk is a generator that yields an `Ask` or a `Pause`, is sent the answer, and returns what the
caller wanted. Whoever holds the talk (`transport`) does the waiting, in a thread or on a loop, so
each call of the API is written once for both clients.
"""

from __future__ import annotations

import itertools
import json
import random
import time
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar
from urllib.parse import parse_qs, quote, urlsplit
from uuid import uuid4

from opscore_sdk.errors import UnreachableError, UnsendableError, from_answer

T = TypeVar("T")

#: Tries of a request that may be sent twice; with the waits below, about three seconds.
TRIES = 4
_FIRST_WAIT_S = 0.2
_MAX_WAIT_S = 3.2
#: A longer `Retry-After` is not waited for by somebody without patience.
_IMPATIENT_S = 2.0
#: Answers that say nothing about the request itself: it was not done, or its answer got lost.
AGAIN = frozenset({429, 502, 503, 504})
#: How much longer than it was asked to wait an answer may take.
_GRACE_S = 30.0
#: Rows of the largest page.
_PAGE = 200


@dataclass(frozen=True)
class Ask:
    """One HTTP request; the path is below `/api/v1`."""

    method: str
    path: str
    query: Mapping[str, Any] = field(default_factory=dict)
    content: bytes | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    timeout_s: float | None = None
    """None: that of the client."""


@dataclass(frozen=True)
class Pause:
    """Wait so long."""

    seconds: float


@dataclass(frozen=True)
class Answer:
    """What came back: a status and JSON, None where there is none."""

    status: int
    body: Any
    retry_after_s: float = 0.0


@dataclass
class Opened:
    """A stream that is open; `response` and `lines` belong to whoever holds the talk."""

    response: Any
    lines: Any
    status: int = 200


@dataclass(frozen=True)
class Listen:
    """Open a stream; what comes back is `Opened`, or the answer that refuses it."""

    request: Ask


@dataclass(frozen=True)
class Hear:
    """Wait for the next line of a stream; None comes back at its end."""

    opened: Opened


@dataclass(frozen=True)
class HangUp:
    """Close a stream."""

    opened: Opened


Step = Ask | Pause | Listen | Hear | HangUp
Talk = Generator[Step, Any, T]


def ask(
    method: str,
    path: str,
    *,
    body: Any = None,
    text: str | None = None,
    media_type: str = "application/json",
    query: Mapping[str, Any] | None = None,
    idempotency_key: str | None = None,
    headers: Mapping[str, str] | None = None,
    repeatable: bool = True,
    timeout_s: float | None = None,
    patience_s: float = 0.0,
) -> Talk[Any]:
    """Send one request and return its JSON, None where there is none.

    A repeatable request is sent again when the connection fails, the answer is 429, 502, 503 or
    504, or its first try is still at work, after the pause that `Retry-After` asks for: four
    times, and for `patience_s` seconds at least. A POST gets an `Idempotency-Key` for that, so it
    is done once. Raises ApiError, UnreachableError and, before anything is sent, UnsendableError.
    """
    told = dict(headers or {})
    if body is not None:
        text = as_json(body)
    if text is not None:
        told["Content-Type"] = media_type
    if method == "POST" and repeatable:
        told["Idempotency-Key"] = idempotency_key or str(uuid4())
    wanted = {name: value for name, value in (query or {}).items() if value is not None}
    content = None if text is None else _encoded(text)
    request = Ask(method, path, wanted, content, told, timeout_s)
    answer: Answer = yield from sent(request, TRIES if repeatable else 1, patience_s)
    if not 200 <= answer.status < 300:
        raise from_answer(answer.status, answer.body, answer.retry_after_s)
    return answer.body


def as_json(value: Any) -> str:
    """Return a value's JSON text; raises UnsendableError where it has none (NaN, a set, …)."""
    try:
        return json.dumps(value, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise UnsendableError(f"What was to be sent is no JSON: {error}.") from None


def _encoded(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise UnsendableError(f"What was to be sent is no text: {error}.") from None


def sent(request: Ask | Listen, tries: int, patience_s: float) -> Talk[Any]:
    """Send it until it is answered otherwise than "later", so often or so long; see `ask`."""
    give_up_at = time.monotonic() + patience_s
    for number in itertools.count(1):
        answer: Answer | Opened | UnreachableError = yield request
        left_s = give_up_at - time.monotonic()
        last = number >= tries and left_s <= 0
        asked_s = 0.0
        if isinstance(answer, UnreachableError):
            if last:
                raise answer
        elif isinstance(answer, Opened) or last or not _is_passing(answer):
            return answer
        else:
            asked_s = min(answer.retry_after_s, max(left_s, _IMPATIENT_S))
        yield Pause(max(asked_s, wait_s(number)))
    raise AssertionError("unreachable")


def _is_passing(answer: Answer) -> bool:
    if answer.status == 409 and isinstance(answer.body, Mapping):
        # Its first try is still at work; soon there is an answer.
        return answer.body.get("code") == "idempotency_in_use"
    return answer.status in AGAIN


def wait_s(number: int) -> float:
    """Return the pause after the failure with this number: growing, with jitter."""
    pause_s: float = min(_FIRST_WAIT_S * 2 ** min(number - 1, 16), _MAX_WAIT_S)
    return pause_s * (0.5 + random.random())  # noqa: S311 - jitter, no secret


def rows(
    path: str, read: Callable[[Mapping[str, Any]], T], limit: int, query: Mapping[str, Any]
) -> Talk[list[T]]:
    """Return the newest `limit` rows of a list, over as many pages as that takes."""
    found: list[T] = []
    after: str | None = None
    while len(found) < limit:
        size = min(limit - len(found), _PAGE)
        page = yield from ask("GET", path, query={**query, "limit": size, "after": after})
        found += [read(row) for row in page["results"]]
        if not page["next"]:
            break
        after = parse_qs(urlsplit(page["next"]).query)["after"][0]
    return found


def waiting(wait_s: float | None) -> dict[str, Any]:
    """Return what `ask` takes for an answer that may come so many seconds later."""
    if not wait_s:
        return {}
    # The server answers in time; a connection that is dead should be noticed soon after.
    return {"query": {"wait": f"{round(wait_s, 3):g}"}, "timeout_s": wait_s + _GRACE_S}


def part(text: str) -> str:
    """Return a text as one part of a path."""
    return quote(text, safe="", errors="replace")


def given(**fields: Any) -> dict[str, Any]:
    """Return the fields that are not None, for a body that leaves out what was not said."""
    return {name: value for name, value in fields.items() if value is not None}
