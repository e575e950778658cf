"""An agent: functions that do tasks, and the program around them."""

from __future__ import annotations

import asyncio
import inspect
import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import httpx

from opscore_sdk.client import AsyncClient
from opscore_sdk.errors import InvalidError
from opscore_sdk.life import Life
from opscore_sdk.place import PlaceError

log = logging.getLogger("opscore_sdk")
F = TypeVar("F", bound=Callable[..., Any])
#: Seconds that an agent on its way out gives its functions to finish.
GRACE_S = 25.0
#: EX_CONFIG: only a person can mend it. A supervisor does not start such a program again.
HOPELESS = 78


@dataclass(frozen=True)
class Handler:
    """A function that does tasks or takes messages."""

    function: Callable[..., Any]
    is_async: bool
    wants_context: bool


@dataclass
class Agent:
    """A program that does tasks of some capabilities.

    Example:
        agent = Agent("shouter")

        @agent.task("shout")
        def shout(inputs, context):
            context.log("shouting")
            return {"text": inputs["text"].upper()}

        agent.run()

    OPSCORE_API_URL and OPSCORE_API_KEY say where the platform is; without a name it is
    OPSCORE_AGENT_NAME. A function gets the task's inputs, and a `Context` (`AsyncContext` if it
    is `async`) when it takes a second argument; it returns any JSON. It fails by raising:
    `TaskError` says exactly how, any other exception counts by its type and message.
    """

    name: str = ""
    capabilities: Sequence[str] = ()
    """What it offers; none: all that it has a function for."""
    labels: Sequence[str] = ()
    """What tasks may require of it."""
    concurrency: int | None = None
    """Tasks at once; None: OPSCORE_CONCURRENCY, as its host's file says, else 1."""
    grace_s: float = GRACE_S
    """Seconds for the functions to finish after SIGTERM; then their tasks are given back."""
    kind: str = "remote"
    tasks: dict[str, Handler] = field(default_factory=dict, init=False, repr=False)
    listeners: dict[str, Handler] = field(default_factory=dict, init=False, repr=False)
    _life: Life | None = field(default=None, init=False, repr=False)

    def task(self, capability: str) -> Callable[[F], F]:
        """Make a function do the tasks of a capability. Raises ValueError, TypeError."""

        def keep(function: F) -> F:
            if capability in self.tasks:
                raise ValueError(f"Two functions do {capability!r}.")
            self.tasks[capability] = _handler(function, "inputs")
            return function

        return keep

    def on_message(self, topic: str = "") -> Callable[[F], F]:
        """Make a function take the messages of a topic; '' takes those that no other one takes.

        It gets a `Message`. When it raises, the message comes again later.
        """

        def keep(function: F) -> F:
            if topic in self.listeners:
                raise ValueError(f"Two functions take the messages of {topic!r}.")
            self.listeners[topic] = _handler(function, "message")
            return function

        return keep

    def run(self, client: AsyncClient | None = None) -> None:
        """Do tasks until SIGTERM or SIGINT, then finish, report and sign off.

        A second signal cuts the grace time short. Raises OpsCoreError when the platform refuses
        the key; while nobody answers it waits. AgentStoppedError: somebody stopped the agent on
        the platform. What another start would meet again, a registration that is not valid or an
        address that is missing, is logged, and ends the program with status 78 (EX_CONFIG).
        """
        if not logging.getLogger().handlers:
            logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
            logging.getLogger("httpx").setLevel(logging.WARNING)
        try:
            asyncio.run(self.run_async(client))
        except (InvalidError, PlaceError) as error:
            log.error("%s: %s", self.name or "agent", error)  # noqa: TRY400 - no trace mends it
            raise SystemExit(HOPELESS) from error

    async def run_async(
        self, client: AsyncClient | None = None, *, catch_signals: bool = True
    ) -> None:
        """Do what `run` does on the running event loop."""
        offered = self.offered
        if self._life is not None:
            raise RuntimeError("This agent runs already.")
        own = client is None
        client = client or AsyncClient(
            transport=httpx.AsyncHTTPTransport(limits=httpx.Limits(max_keepalive_connections=20))
        )
        self._life = Life(self, self._named(), offered, client)
        try:
            await self._life.live(catch_signals=catch_signals)
        finally:
            self._life = None
            if own:
                await client.close()

    def stop(self) -> None:
        """Make `run` finish as SIGTERM does; any thread may call it. Harmless when it is over."""
        if self._life is not None:
            self._life.stop()

    @property
    def is_running(self) -> bool:
        """Whether `run` is under way."""
        return self._life is not None

    @property
    def offered(self) -> list[str]:
        """The capabilities that it offers. Raises ValueError when one has no function."""
        missing = sorted(set(self.capabilities) - set(self.tasks))
        if missing:
            raise ValueError(f"No function does {', '.join(map(repr, missing))}: add @agent.task.")
        if not self.tasks and not self.listeners:
            raise ValueError("This agent has no function: add one with @agent.task.")
        _ = self.slots
        return list(self.capabilities or self.tasks)

    @property
    def slots(self) -> int:
        """How many tasks it does at once. Raises ValueError."""
        if self.concurrency is not None:
            said, where = str(self.concurrency), "concurrency"
        else:
            said, where = os.environ.get("OPSCORE_CONCURRENCY", "1"), "OPSCORE_CONCURRENCY"
        if not said.isascii() or not said.isdigit() or int(said) < 1:
            raise ValueError(f"{where} must be a whole number of at least 1, not {said!r}.")
        return int(said)

    def _named(self) -> str:
        name = self.name or os.environ.get("OPSCORE_AGENT_NAME", "")
        if not name:
            raise PlaceError("The agent has no name: Agent('name'), or set OPSCORE_AGENT_NAME.")
        return name


def _handler(function: Callable[..., Any], first: str) -> Handler:
    wanted = [
        given
        for given in inspect.signature(function).parameters.values()
        if given.kind in (given.POSITIONAL_ONLY, given.POSITIONAL_OR_KEYWORD)
        and given.default is given.empty
    ]
    if len(wanted) not in (1, 2) or (first == "message" and len(wanted) != 1):
        takes = f"({first})" if first == "message" else f"({first}) or ({first}, context)"
        raise TypeError(f"{function.__name__} must take {takes}.")
    return Handler(function, inspect.iscoroutinefunction(function), len(wanted) == 2)
