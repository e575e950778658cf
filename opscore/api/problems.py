"""Every error as one JSON shape: type, title, status, code, detail, request_id, errors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

import structlog
from django.core.exceptions import (
    PermissionDenied,
    RequestDataTooBig,
    SuspiciousOperation,
    TooManyFieldsSent,
    ValidationError,
)
from django.db.utils import DataError, InterfaceError, OperationalError
from django.http import Http404, JsonResponse
from rest_framework import exceptions
from rest_framework.response import Response

from opscore.config import load_config
from opscore.errors import OpsCoreError, Problem

MEDIA_TYPE = "application/problem+json"
_CODES = {
    400: "invalid",
    401: "unauthorized",
    403: "forbidden",
    404: "not_found",
    405: "method_not_allowed",
    406: "not_acceptable",
    408: "timeout",
    409: "conflict",
    413: "too_large",
    414: "too_long",
    415: "unsupported_media_type",
    429: "throttled",
    503: "unavailable",
}
#: The challenge of RFC 6750; a browser shows no password box for it.
CHALLENGE = {"WWW-Authenticate": 'Bearer realm="ops-core"'}
_AGAIN = {"Retry-After": "1"}
#: Errors that one answer lists, as of a definition, and characters of a sentence.
_LISTED = 100
_LONGEST = 2000
_NOT_VALID = "A value in the request is not valid."


@dataclass(frozen=True)
class Failure:
    """An error answer before it is written."""

    status: int
    detail: str
    code: str = ""
    problems: tuple[Problem, ...] = ()
    headers: Mapping[str, str] = field(default_factory=dict)
    extra: Mapping[str, Any] = field(default_factory=dict)
    """More members of the object, for programs: the present version of what was changed."""

    def body(self) -> dict[str, Any]:
        """Return the JSON object; the request id comes from the log context."""
        return {
            "type": "about:blank",
            "title": HTTPStatus(self.status).phrase,
            "status": self.status,
            "code": self.code or _CODES.get(self.status, "internal"),
            "detail": _sendable(self.detail),
            "request_id": structlog.contextvars.get_contextvars().get("request_id", ""),
            "errors": [_sendable(problem.as_dict()) for problem in self.problems],
            **self.extra,
        }

    def respond(self) -> JsonResponse:
        """Return it as an answer outside of DRF."""
        return JsonResponse(
            self.body(), status=self.status, headers=dict(self.headers), content_type=MEDIA_TYPE
        )


INTERNAL = Failure(500, "Something went wrong inside Ops-Core; its log has the request id.")


def _sendable(said: Any) -> Any:
    """Write halves of surrogate pairs, which have no UTF-8, as their escapes; cut what is long."""
    if isinstance(said, dict):
        return {name: _sendable(value) for name, value in said.items()}
    if not isinstance(said, str):
        return said
    # An answer must not be as large as what was sent.
    text = said if len(said) <= _LONGEST else f"{said[:_LONGEST]}…"
    return text.encode("utf-8", "backslashreplace").decode()


def answer(error: Exception, context: Mapping[str, Any]) -> Response | None:
    """Answer an exception of a DRF view; None leaves it to the frame, which logs it."""
    failure = translate(error)
    if failure is None:
        return None
    return Response(
        failure.body(),
        status=failure.status,
        headers=dict(failure.headers),
        content_type=MEDIA_TYPE,
    )


def translate(error: Exception) -> Failure | None:
    """Return what an exception says to a user; None for one that is our own fault."""
    if isinstance(error, OpsCoreError):
        return _ours(error)
    if isinstance(error, exceptions.APIException):
        return _drf(error)
    if isinstance(error, OperationalError | InterfaceError):
        return Failure(503, "The database does not answer; try again.", headers=_AGAIN)
    return _django(error)


def too_large() -> Failure:
    """Return the answer to a body above the limit."""
    limit = load_config().max_body_bytes
    return Failure(413, f"The body is above the limit of {limit} bytes (OPSCORE_MAX_BODY_BYTES).")


def _ours(error: OpsCoreError) -> Failure:
    headers = dict(getattr(error, "headers", {}))
    if error.status == 401:
        headers |= CHALLENGE
    elif error.status == 503:
        headers |= _AGAIN
    problems = tuple(getattr(error, "problems", ()))
    extra = getattr(error, "extra", {})
    return Failure(error.status, str(error), error.code, problems, headers, extra)


def _drf(error: exceptions.APIException) -> Failure:
    if isinstance(error, exceptions.ValidationError):
        problems = _shortened(list(_flattened(error.detail)))
        detail = str(problems[0]) if len(problems) == 1 else "What was sent is not valid."
        return Failure(400, detail, problems=problems)
    headers: dict[str, str] = {}
    if error.status_code == 401:
        headers |= CHALLENGE
    wait = getattr(error, "wait", None)
    if wait:
        headers["Retry-After"] = str(int(wait))
    return Failure(error.status_code, str(error.detail), headers=headers)


def _django(error: Exception) -> Failure | None:
    if isinstance(error, Http404):
        return Failure(404, str(error) or "There is nothing here.")
    if isinstance(error, PermissionDenied):
        return Failure(403, "This is not allowed.")
    if isinstance(error, RequestDataTooBig):
        return too_large()
    if isinstance(error, SuspiciousOperation | DataError):
        too_many = isinstance(error, TooManyFieldsSent)
        what = "The address has too many parameters." if too_many else _NOT_VALID
        return Failure(400, what)
    if isinstance(error, ValidationError):
        return Failure(400, "; ".join(error.messages))
    return None


def _shortened(problems: list[Problem]) -> tuple[Problem, ...]:
    """Keep the first of very many: an answer must not be as large as what was sent."""
    left = len(problems) - _LISTED
    more = [Problem(f"and {left} more errors")] if left > 0 else []
    return (*problems[:_LISTED], *more)


def _flattened(detail: Any, path: str = "") -> Iterator[Problem]:
    if isinstance(detail, Mapping):
        for name, inner in detail.items():
            yield from _flattened(inner, _below(path, name))
    elif isinstance(detail, list):
        for number, inner in enumerate(detail):
            # A list of messages belongs to the field; a list of mappings to its items.
            nested = isinstance(inner, Mapping | list)
            yield from _flattened(inner, f"{path}[{number}]" if nested else path)
    else:
        yield Problem(str(detail), path)


def _below(path: str, name: object) -> str:
    """Return the path of a field, or, by its number, of an item of a list."""
    if isinstance(name, int):
        return f"{path}[{name}]"
    return path if name == "non_field_errors" else f"{path}.{name}".strip(".")
