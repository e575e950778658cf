"""How user code says that an attempt failed."""

from __future__ import annotations

from typing import Any


class HandlerError(Exception):
    """Raise this in a handler to fail the attempt with a structured error.

    `type` is a word that retry rules can name; `retryable=False` makes the failure final.
    Any other exception counts as retryable, with its class name as the type.
    """

    def __init__(self, message: str, *, type: str = "error", retryable: bool = True) -> None:  # noqa: A002 - the wire's word
        super().__init__(message)
        self.type = type
        self.retryable = retryable

    def as_dict(self) -> dict[str, Any]:
        """Return the error as it is stored and sent."""
        return {"type": self.type, "message": str(self), "retryable": self.retryable}
