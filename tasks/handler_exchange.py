"""What a handler in this process gets: its run's shared context and messages, under its fence."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar
from uuid import UUID

from agents.errors import HandlerError
from agents.exchange import Entry, Received, VersionConflictError
from agents.runtime import Life
from opscore.errors import ConflictError, OpsCoreError
from opscore.ids import uuid7
from opscore.models import Project
from tasks import messages, shared
from tasks.held import Claimed
from tasks.patience import patiently
from tasks.writers import Writer

T = TypeVar("T")


class Exchange:
    """Implements `agents.exchange.Shared` and `Post` for one attempt.

    Waits for a database that is away, except in the transaction of a transactional handler: that
    one is run again as a whole.
    """

    def __init__(self, task: Claimed, life: Life, *, in_transaction: bool) -> None:
        self._task = task
        self._session_id = life.session_id
        self._writer = Writer(f"agent:{life.agent}", task.id, task.fence, in_transaction)
        self._in_transaction = in_transaction

    def get(self, key: str) -> Entry | None:
        """Return an entry, or None."""
        return self._do(lambda: shared.get(self._task.run_id, key))

    def entries(self) -> list[Entry]:
        """Return all entries, by key."""
        return self._do(lambda: shared.entries(self._task.run_id))

    def put(self, key: str, value: Any, if_version: int | None = None) -> Entry:
        """Write a JSON value."""
        run_id, writer = self._task.run_id, self._writer
        return self._do(
            lambda: shared.put(run_id, key, value, writer=writer, if_version=if_version)
        )[0]

    def delete(self, key: str, if_version: int | None = None) -> bool:
        """Remove an entry; return whether there was one."""
        run_id, writer = self._task.run_id, self._writer
        return self._do(lambda: shared.delete(run_id, key, writer=writer, if_version=if_version))

    def send(self, to: Mapping[str, str], topic: str, body: Any, ttl_s: float) -> UUID:
        """Send a message; return its id."""
        # Chosen here: a repetition after a lost answer is the same message.
        message_id = uuid7()
        project = Project(pk=self._task.project_id)
        self._do(
            lambda: messages.send(
                project,
                self._task.run_id,
                to=to,
                topic=topic,
                body=body,
                ttl_s=ttl_s,
                writer=self._writer,
                message_id=message_id,
            )
        )
        return message_id

    def receive(self, limit: int, lease_s: float) -> list[Received]:
        """Take messages to this agent or to one of its capabilities."""
        return self._do(lambda: messages.receive(self._session_id, limit, lease_s))

    def acknowledge(self, message: Received) -> bool:
        """Say that a message is done; False: it was handed out again, or has expired."""
        try:
            self._do(lambda: messages.acknowledge(message.id, message.receipt))
        except HandlerError:
            return False
        return True

    def _do(self, action: Callable[[], T]) -> T:
        with _told_to_the_handler():
            return action() if self._in_transaction else _when_free(action)


def _when_free(action: Callable[[], T]) -> T:
    """Do an action, however long a transactional handler of another task keeps it waiting."""
    while True:
        try:
            return patiently(action)
        except shared.ContextBusyError:
            # Each try asks whether the attempt is over, and lets go of its row before the next.
            continue


@contextmanager
def _told_to_the_handler() -> Iterator[None]:
    """Raise what a handler may catch, or leave to fail its attempt."""
    try:
        yield
    except shared.VersionMismatchError as error:
        raise VersionConflictError(str(error), error.version) from None
    except OpsCoreError as error:
        is_final = not isinstance(error, ConflictError)
        raise HandlerError(str(error), type=error.code, retryable=not is_final) from None
