"""How the in-memory platform says no, and what it accepts: the shapes of the real API."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any
from uuid import uuid4

_CODES = {
    400: "invalid",
    401: "unauthorized",
    404: "not_found",
    405: "method_not_allowed",
    409: "conflict",
    413: "too_large",
    422: "idempotency_mismatch",
    501: "not_implemented",
    503: "unavailable",
}
#: Returns what is wrong with a value, '' when nothing is.
Check = Callable[[Any], str]


class Refused(Exception):  # noqa: N818 - an answer, not a failure
    """An answer other than 2xx."""

    def __init__(
        self,
        status: int,
        detail: str,
        errors: Mapping[str, str] | None = None,
        *,
        code: str = "",
        **more: Any,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.code = code or _CODES.get(status, "internal")
        self.more = more
        self.errors = [{"message": text, "path": path} for path, text in (errors or {}).items()]

    def body(self) -> dict[str, Any]:
        """Return it as JSON."""
        return {
            "type": "about:blank",
            "title": HTTPStatus(self.status).phrase,
            "status": self.status,
            "code": self.code,
            "detail": str(self),
            "request_id": uuid4().hex,
            "errors": self.errors,
            **self.more,
        }


def checked(body: Any, required: Mapping[str, Check], /, **optional: Check) -> dict[str, Any]:
    """Return the body when each field is known and valid. Raises Refused with all errors."""
    if body is None:
        body = {}
    if not isinstance(body, dict):
        raise Refused(400, "An object is expected.", {"": "an object is expected"})
    known = {**required, **optional}
    errors = {name: _unknown(name, list(known)) for name in body if name not in known}
    errors |= {name: "This field is required." for name in required if name not in body}
    for name, check in known.items():
        if name in body and (wrong := check(body[name])):
            errors[name] = wrong
    if errors:
        first = next(f"{name}: {text}" for name, text in errors.items())
        detail = first if len(errors) == 1 else "What was sent is not valid."
        raise Refused(400, detail, errors)
    return body


def _unknown(name: str, known: list[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}"
    return f"unknown field {name!r}; {hint}"


def anything(_: Any) -> str:
    """Accept any JSON."""
    return ""


def mapping(value: Any) -> str:
    """Accept an object."""
    return "" if isinstance(value, dict) else "an object is expected"


def text(longest: int, *, blank: bool = True) -> Check:
    """Accept a text up to this length."""

    def check(value: Any) -> str:
        if not isinstance(value, str):
            return "a text is expected"
        if not blank and not value.strip():
            return "must not be empty"
        return "" if len(value) <= longest else f"at most {longest} characters"

    return check


def number(low: float, high: float, *, whole: bool = False, null: bool = False) -> Check:
    """Accept a number in this range."""
    kinds = (int,) if whole else (int, float)

    def check(value: Any) -> str:
        if value is None and null:
            return ""
        if isinstance(value, bool) or not isinstance(value, kinds):
            return "a whole number is expected" if whole else "a number is expected"
        return "" if low <= value <= high else f"must be {low:g} to {high:g}"

    return check


def words(value: Any) -> str:
    """Accept a list of words."""
    if not isinstance(value, list):
        return "a list is expected"
    good = all(isinstance(word, str) and word.strip() and len(word) <= 80 for word in value)
    return "" if good else "words of 1 to 80 characters are expected"


def one_of(*choices: str) -> Check:
    """Accept one of these words."""
    return lambda value: "" if value in choices else f"must be one of {', '.join(choices)}"
