"""What handlers return: checked, encoded, kept inline or by reference, read back."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from opscore.config import load_config
from tasks import payloads
from tasks.models import Run, Task


class ResultError(ValueError):
    """The result cannot be stored; `type` says whether it is no JSON or too large."""

    def __init__(self, message: str, *, type: str) -> None:  # noqa: A002 - the wire's word
        super().__init__(message)
        self.type = type

    def as_dict(self) -> dict[str, Any]:
        """Return the structured error; it is final, the same handler would return it again."""
        return {"type": self.type, "message": str(self), "retryable": False}


@dataclass(frozen=True, slots=True)
class Encoded:
    """A result as it is stored: inline text, or a reference."""

    text: str | None
    reference: UUID | None = None


def encode(value: Any) -> str:
    """Return the JSON text of a handler's result. Raises ResultError."""
    try:
        text = json.dumps(value, allow_nan=False, ensure_ascii=False, separators=(",", ":"))
        size = len(text.encode())
    except (TypeError, ValueError, RecursionError) as error:
        message = f"the result is not JSON: {error}"
        raise ResultError(message, type="invalid_result") from None
    if "\\u0000" in text and _has_nul(value):
        message = "the result holds a NUL character, which cannot be stored"
        raise ResultError(message, type="invalid_result")
    limit = load_config().max_result_bytes
    if size > limit:
        message = f"the result has {size} bytes, more than {limit}"
        raise ResultError(message, type="result_too_large")
    return text


def storable(error: Mapping[str, Any]) -> dict[str, Any]:
    """Return a structured error that can be stored, whatever a handler put into it."""
    kept: dict[str, Any] = {name: _plain(error[name]) for name in _TEXTS if name in error}
    if error.get("retryable") is False:
        kept["retryable"] = False
    return kept


def _plain(value: Any) -> str:
    text = str(value)[-_MAX_TEXT:].replace("\0", "\N{SYMBOL FOR NULL}")
    return text.encode(errors="replace").decode()


#: What an error says in words, and how much of each is kept.
_TEXTS = ("type", "message", "traceback")
_MAX_TEXT = 8000


def store(project_id: int, value: Any) -> Encoded:
    """Encode a result and keep it where its size says. Raises ResultError."""
    text = encode(value)
    if len(text.encode()) <= load_config().inline_result_bytes:
        return Encoded(text)
    return Encoded(None, payloads.save(project_id, text))


def result_of(task: Task) -> Any:
    """Return a task's result, wherever it is kept; None while there is none."""
    return payloads.load(task.result, task.result_ref)


def outputs_of(run: Run) -> Any:
    """Return a run's outputs: what its end node evaluated; None when it has none."""
    end = run.tasks.filter(uses="end", status="completed").first()
    return result_of(end) if end else None


def _has_nul(value: Any) -> bool:
    if isinstance(value, str):
        return "\0" in value
    if isinstance(value, dict):
        return any(_has_nul(item) for pair in value.items() for item in pair)
    return isinstance(value, list | tuple) and any(map(_has_nul, value))
