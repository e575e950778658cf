"""What users write: Python functions that do the tasks of a capability."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any
from uuid import UUID

from agents.errors import HandlerError
from agents.exchange import Alone, Post, Received, Shared, VersionConflictError

__all__ = [
    "Context",
    "Handler",
    "HandlerError",
    "Registered",
    "VersionConflictError",
    "handler",
    "load",
]

#: Anything that does one task: takes its context, returns a JSON value.
Handler = Callable[["Context"], Any]


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
    shared: Shared = field(default_factory=Alone, repr=False)
    """The run's context, shared with its other agents: get, entries, put, delete."""
    post: Post = field(default_factory=Alone, repr=False)

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

    def send(
        self, to: Mapping[str, str], topic: str, body: Any = None, ttl_s: float = 3600
    ) -> UUID:
        """Send a message to `{"agent": name}`, or to one agent of `{"capability": word}`.

        It is kept until it is acknowledged, `ttl_s` seconds at most; returns its id. Raises
        HandlerError.
        """
        return self.post.send(to, topic, body, ttl_s)

    def receive(self, limit: int = 10, lease_s: float = 30) -> list[Received]:
        """Take messages to this agent or to one of its capabilities, oldest first; never waits.

        What is not acknowledged within `lease_s` seconds comes again, perhaps elsewhere.
        """
        return self.post.receive(limit, lease_s)

    def acknowledge(self, message: Received) -> bool:
        """Say that a message is done; False: its lease was over and it was handed out again."""
        return self.post.acknowledge(message)


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
