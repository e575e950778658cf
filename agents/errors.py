"""How user code says that an attempt failed."""

from __future__ import annotations

from typing import Any


class HandlerError(Exception):
    """Raise this in a handler to fail the attempt with a structured error.

    `type` is a word that retry rules can name; `retryable=False` makes the failure final.
    `retry_after_s` is how long the resource that the task names asks to be left alone: its
    circuit breaker opens at once for that long.
    Any other exception counts as retryable, with its class name as the type.
    """

    def __init__(
        self,
        message: str,
        *,
        type: str = "error",  # noqa: A002 - the wire's word
        retryable: bool = True,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message)
        self.type = type
        self.retryable = retryable
        self.retry_after_s = retry_after_s

    def as_dict(self) -> dict[str, Any]:
        """Return the error as it is stored and sent."""
        said = {"type": self.type, "message": str(self), "retryable": self.retryable}
        wait = {} if self.retry_after_s is None else {"retry_after_s": self.retry_after_s}
        return {**said, **wait}
