"""What can go wrong; `str(error)` is one sentence for people.

OpsCoreError
├── TaskError                what an agent's function raises to say how a task failed
├── TaskCancelledError       in an agent's function: its work is not wanted any more
├── AgentStoppedError        the platform wants this agent to be stopped
├── UnreachableError         nobody answers at that address
├── UnsendableError          what was to be sent is no JSON; nothing was sent
├── WaitTimeoutError         the run has not ended in the time given
└── ApiError                 the platform refused; status, code, errors, request_id
    ├── InvalidError         400, 422   what was sent is not valid
    ├── AuthenticationError  401        the API key is missing or wrong
    ├── ForbiddenError       403        the API key lacks a scope
    ├── NotFoundError        404
    ├── ConflictError        409        not possible in the present state
    │   └── VersionConflictError        somebody else wrote this key meanwhile
    ├── TooLargeError        413
    └── ServerError          5xx        try again, or look into the platform's log
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

#: Problems that the sentence of an error names.
_SHOWN = 3


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong with what was sent."""

    message: str
    path: str = ""
    """Where in the document, as `tasks.review.needs[0]`."""
    line: int | None = None
    """1-based line of the definition's text, where known."""
    file: str = ""
    """Of several texts that were sent together: the one it is in."""

    @classmethod
    def read(cls, item: Any) -> Problem:
        """Take it from an answer, whatever that holds."""
        if not isinstance(item, Mapping):
            return cls(str(item))
        line = item.get("line")
        return cls(
            str(item.get("message", "")),
            str(item.get("path", "")),
            line if isinstance(line, int) else None,
            str(item.get("file", "")),
        )

    def __str__(self) -> str:
        return f"{self.path}: {self.message}" if self.path else self.message


class OpsCoreError(Exception):
    """Something went wrong between here and the platform."""

    if sys.version_info < (3, 11):

        def add_note(self, note: str) -> None:
            """Add a hint, as exceptions can by themselves from Python 3.11 on."""
            self.__notes__ = [*getattr(self, "__notes__", ()), note]


class UnreachableError(OpsCoreError):
    """Nobody answers at that address."""


class UnsendableError(OpsCoreError, ValueError):
    """What was to be sent is no JSON, or no text; nothing was sent."""


class WaitTimeoutError(OpsCoreError):
    """The run has not ended in the time given; it goes on."""


class TaskError(OpsCoreError):
    """Raised by an agent's function: how its task failed, and whether to try again.

    `type` is a word that workflows may match (`quota`); `retryable` False makes the failure
    final, True leaves it to the task's own retry policy. `retry_after_s` is how long the resource
    that the task names asks to be left alone: its circuit breaker opens at once for that long.
    """

    def __init__(
        self,
        type: str,  # noqa: A002 - the word of the wire
        message: str = "",
        *,
        retryable: bool = True,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message or type)
        self.type, self.retryable = type, retryable
        self.retry_after_s = retry_after_s

    def as_dict(self) -> dict[str, Any]:
        """Return what is reported."""
        said = {"type": self.type, "message": str(self), "retryable": self.retryable}
        wait = {} if self.retry_after_s is None else {"retry_after_s": self.retry_after_s}
        return {**said, **wait}


class TaskCancelledError(OpsCoreError):
    """The task was cancelled, timed out or taken away: stop, nothing of it counts any more."""


class AgentStoppedError(OpsCoreError):
    """Somebody stopped this agent on the platform; `opscore_sdk.Agent.run` ends by it."""


class ApiError(OpsCoreError):
    """The platform answered with an error; `str()` has the first of its `errors`."""

    retry_after_s = 0.0
    """How long the platform asks to be left alone, seconds; 0: it did not say."""

    def __init__(self, status: int, detail: str, body: Mapping[str, Any] | None = None) -> None:
        body = body or {}
        self.errors = tuple(map(Problem.read, body.get("errors") or ()))
        super().__init__(_with_problems(detail, self.errors))
        self.status = status
        self.code = str(body.get("code", ""))
        self.request_id = str(body.get("request_id", ""))


class InvalidError(ApiError):
    """What was sent is not valid; `errors` lists everything that is wrong with it."""


class AuthenticationError(ApiError):
    """The API key is missing or wrong."""


class ForbiddenError(ApiError):
    """The API key lacks the scope for this."""


class NotFoundError(ApiError):
    """There is no such thing."""


class ConflictError(ApiError):
    """This is not possible in the present state."""


class VersionConflictError(ConflictError):
    """The shared key has another version by now: read it again, then decide."""


class TooLargeError(ApiError):
    """What was sent is too large."""


class ServerError(ApiError):
    """The platform, or something in front of it, failed."""


_BY_STATUS: dict[int, type[ApiError]] = {
    400: InvalidError,
    401: AuthenticationError,
    403: ForbiddenError,
    404: NotFoundError,
    409: ConflictError,
    412: ConflictError,
    413: TooLargeError,
    422: InvalidError,
}


def is_passing(error: OpsCoreError) -> bool:
    """Tell whether the same request may succeed a little later, unchanged."""
    if isinstance(error, ApiError):
        again = error.status == 429 or error.code == "idempotency_in_use"
        return again or isinstance(error, ServerError)
    return isinstance(error, UnreachableError)


def from_answer(status: int, body: Any, retry_after_s: float = 0.0) -> ApiError:
    """Return the error that an answer stands for; `body` is its JSON, or None."""
    error = _error(status, body)
    error.retry_after_s = retry_after_s
    return error


def _with_problems(detail: str, problems: Sequence[Problem]) -> str:
    """Return the sentence with what it says too little about, so that a traceback is enough."""
    news = [str(problem) for problem in problems if problem.message not in detail]
    if not news:
        return detail
    more = f" (and {len(news) - _SHOWN} more)" if len(news) > _SHOWN else ""
    return f"{detail.rstrip('.')}: {'; '.join(news[:_SHOWN])}{more}"


def _error(status: int, body: Any) -> ApiError:
    kind = _BY_STATUS.get(status, ServerError if status >= 500 else ApiError)
    if isinstance(body, Mapping) and isinstance(body.get("detail"), str):
        kind = VersionConflictError if body.get("code") == "version_conflict" else kind
        return kind(status, body["detail"], body)
    return kind(status, f"The server answered with status {status}; is it Ops-Core?")
