"""Errors that people see. The docstring is the default message; `code` goes over the wire.

OpsCoreError                 500
├── NotFoundError            404
├── InvalidError             400   carries all problems, each with path and line
├── ConflictError            409
├── UnauthorizedError        401
├── ForbiddenError           403
├── TooLargeError            413
├── TooManyRequestsError     429   carries when to come back
└── UnavailableError         503   the database or the broker is away
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong with what a user sent."""

    message: str
    path: str = ""
    """Where in the document, as `tasks.review.needs[0]`."""
    line: int | None = None
    """1-based line of the YAML or JSON text, where known."""
    file: str = ""
    """Which of several texts that were sent together."""

    def as_dict(self) -> dict[str, Any]:
        """Return what goes into an error answer; unknown places are left out."""
        return {key: value for key, value in asdict(self).items() if value not in ("", None)}

    def __str__(self) -> str:
        where = f"line {self.line}: " if self.line else ""
        where = f"{self.file}: {where}" if self.file else where
        return f"{where}{self.path}: {self.message}" if self.path else f"{where}{self.message}"


class OpsCoreError(Exception):
    """Something went wrong inside Ops-Core."""

    status = 500
    code = "internal"

    def __init__(self, message: str = "") -> None:
        super().__init__(message or (self.__doc__ or "").splitlines()[0])


class NotFoundError(OpsCoreError):
    """There is no such thing."""

    status = 404
    code = "not_found"


class InvalidError(OpsCoreError):
    """What was sent is not valid."""

    status = 400
    code = "invalid"

    def __init__(self, message: str = "", problems: Sequence[Problem] = ()) -> None:
        super().__init__(message)
        self.problems = tuple(problems)
        # In a script or a test the traceback names them too.
        for problem in self.problems:
            self.add_note(str(problem))


class ConflictError(OpsCoreError):
    """This is not possible in the present state."""

    status = 409
    code = "conflict"


class UnauthorizedError(OpsCoreError):
    """A valid API key is required: Authorization: Bearer <key>."""

    status = 401
    code = "unauthorized"


class ForbiddenError(OpsCoreError):
    """This API key lacks the scope."""

    status = 403
    code = "forbidden"


class TooLargeError(OpsCoreError):
    """What was sent is too large."""

    status = 413
    code = "too_large"


class TooManyRequestsError(OpsCoreError):
    """Too many requests."""

    status = 429
    code = "throttled"

    def __init__(self, message: str, wait_s: float) -> None:
        seconds = max(1, math.ceil(wait_s))
        super().__init__(f"{message}; try again in {seconds} s.")
        self.headers = {"Retry-After": str(seconds)}


class UnavailableError(OpsCoreError):
    """A service that is needed does not answer; try again."""

    status = 503
    code = "unavailable"
