"""What users write: Python functions that do the tasks of a capability."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any
from uuid import UUID

#: Anything that does one task: takes its context, returns a JSON value.
Handler = Callable[["Context"], Any]


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


@dataclass(frozen=True)
class Context:
    """One attempt of one task, as its handler sees it."""

    task_id: UUID
    run_id: UUID
    key: str
    capability: str
    attempt: int
    """1 for the first; a retry after a failure raises it, a lost agent does not. Counted anew in
    each iteration of a loop."""
    inputs: dict[str, Any]
    timeout_s: float | None = None
    """Seconds after which this process is killed and the attempt fails."""
    write_log: Callable[[str, str], None] = field(default=lambda text, stream: None, repr=False)
    ask_cancelled: Callable[[], bool] = field(default=lambda: False, repr=False)

    turn: str = ""
    """Which work of the task this is: '' for the first, the iteration of a loop, or `catch`."""

    @property
    def idempotency_key(self) -> str:
        """The same for every attempt of this work: give it to outside systems."""
        return f"{self.task_id}/{self.turn}" if self.turn else str(self.task_id)

    def log(self, text: str, stream: str = "log") -> None:
        """Add lines to the attempt's log; bounded, later lines are dropped."""
        self.write_log(text, stream)

    def cancelled(self) -> bool:
        """Tell whether somebody cancelled the task; asks the database at most twice a second."""
        return self.ask_cancelled()


@dataclass(frozen=True)
class Registered:
    """A handler and how it wants to be run."""

    capability: str
    function: Handler
    transactional: bool = False
    """Run in the transaction that records the result: its rows are written exactly once."""

    def __call__(self, context: Context) -> Any:
        """Do the task."""
        return self.function(context)


_REGISTRY: dict[str, Registered] = {}


def handler(capability: str, *, transactional: bool = False) -> Callable[[Handler], Handler]:
    """Register a function as the handler of `capability`; the last one registered wins.

    With `transactional=True` the function's own Django rows and the task's result commit
    together: if the agent was given up meanwhile, both are rolled back.
    """

    def register(function: Handler) -> Handler:
        _REGISTRY[capability] = Registered(capability, function, transactional)
        return function

    return register


def load(modules: Iterable[str]) -> dict[str, Registered]:
    """Import the modules and return every handler registered so far, by capability.

    Raises ImportError when a module does not exist.
    """
    for module in modules:
        import_module(module)
    return dict(_REGISTRY)
