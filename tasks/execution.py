"""One hint, executed: claim, run the handler, report. Knows nothing of Celery."""

from __future__ import annotations

import enum
import time
import traceback
from collections.abc import Collection
from typing import Any
from uuid import UUID

import structlog
from django.db import InterfaceError, OperationalError, transaction

from agents.handlers import Context, Handler, HandlerError, Registered
from agents.runtime import Life, current
from opscore.database import query, release
from opscore.errors import ConflictError
from opscore.logs import get_logger
from tasks import tasklogs
from tasks.claims import beat, claim, expression_failure, let_go, spent
from tasks.expressions import ExpressionError
from tasks.handler_exchange import Exchange
from tasks.held import Claimed
from tasks.patience import patiently
from tasks.reports import UnusableError, complete_claimed, fail
from tasks.transitions import repairs

log = get_logger(__name__)

#: How often a transactional handler is run when the database breaks its transaction.
_TRANSACTION_TRIES = 3
#: A handler may ask often whether it was cancelled; the database is asked this often.
_ASK_EVERY_S = 0.5


class Outcome(enum.Enum):
    """What became of a hint, for the canvas that carried it."""

    COMPLETED = "completed"
    """Recorded, now or by an earlier delivery: the canvas goes on."""
    STALE = "stale"
    """Nothing to do: taken, paused, cancelled or over."""
    RETRYING = "retrying"
    FAILED = "failed"


def execute(task_id: UUID, attempt: int, carried: Collection[int]) -> Outcome:
    """Do what a hint says, if it is still due. `carried`: what the canvas delivers next.

    Waits for a database that is away; when it stays away, ends this process, and the task
    runs again elsewhere.
    """
    life = current()
    if life is None:
        log.error("hint.without_agent", task=str(task_id))
        return Outcome.STALE
    task = _claim(task_id, attempt, life)
    if task is None:
        return _stale(task_id)
    with structlog.contextvars.bound_contextvars(
        task=str(task.id), run=str(task.run_id), agent=life.agent, attempt=task.attempt
    ):
        _executing.add(task.id)
        try:
            return _perform(task, life, carried)
        finally:
            _executing.discard(task.id)


#: Tasks that threads of this process execute now.
_executing: set[UUID] = set()


def _claim(task_id: UUID, attempt: int, life: Life) -> Claimed | None:
    try:
        return claim(task_id, attempt, life.session_id)
    except (OperationalError, InterfaceError):
        release()

    # The claim may have been committed although its answer was lost. A session is one process,
    # so if the session holds the task and no thread here executes it, that is what happened.
    def again() -> Claimed | None:
        if task_id not in _executing:
            query(repairs.UNCLAIM, {"id": task_id, "session": life.session_id, "fence": None})
        return claim(task_id, attempt, life.session_id)

    return patiently(again)


def _stale(task_id: UUID) -> Outcome:
    status = patiently(lambda: spent(task_id))
    return Outcome.COMPLETED if status == "completed" else Outcome.STALE


def _perform(task: Claimed, life: Life, carried: Collection[int]) -> Outcome:
    log.debug("task.running", key=task.key)
    try:
        if task.uses == "end":
            done = patiently(lambda: complete_claimed(task, task.inputs, carried))
        else:
            done = _run_handler(task, life, carried)
    except ConflictError:
        log.warning("report.refused", key=task.key)
        patiently(lambda: let_go([task.id], task.fence))
        # Perhaps our own report: recorded, but its answer was lost.
        return _stale(task.id)
    except ExpressionError as error:
        return _failed(task, expression_failure(error))
    except (HandlerError, UnusableError) as error:
        return _failed(task, error.as_dict())
    except BaseException as error:  # noqa: BLE001 - also sys.exit(): the row must not stay running
        return _failed(task, _described(error))
    return Outcome.COMPLETED if done else Outcome.RETRYING


def _run_handler(task: Claimed, life: Life, carried: Collection[int]) -> bool:
    """Return whether the task is done; False: it repeats."""
    handler = life.handlers.get(task.capability)
    if handler is None:
        raise HandlerError(
            f"agent {life.agent} has no handler for {task.capability!r}", type="no_handler"
        )
    in_transaction = isinstance(handler, Registered) and handler.transactional
    context = _context(task, Exchange(task, life, in_transaction=in_transaction))
    if in_transaction:
        return _run_in_transaction(task, handler, context, carried)
    result = _call(handler, context)
    return patiently(lambda: complete_claimed(task, result, carried))


def _run_in_transaction(
    task: Claimed, handler: Handler, context: Context, carried: Collection[int]
) -> bool:
    """Commit the handler's rows and the result together, or not at all.

    A deadlock or a restart of the database rolled everything back: nothing was done, so it is
    done again, a few times.
    """
    left = _TRANSACTION_TRIES
    while True:
        left -= 1
        try:
            with transaction.atomic():
                return complete_claimed(task, handler(context), carried)
        except (OperationalError, InterfaceError):
            release()
            if not left:
                raise


def _call(handler: Handler, context: Context) -> Any:
    try:
        return handler(context)
    finally:
        # A handler that used the ORM may have left a broken connection or transaction.
        release()


def _failed(task: Claimed, error: dict[str, Any]) -> Outcome:
    try:
        retried = patiently(lambda: fail(task.id, task.fence, error))
    except ConflictError:
        log.warning("report.refused", key=task.key)
        patiently(lambda: let_go([task.id], task.fence))
        return Outcome.STALE
    return Outcome.RETRYING if retried else Outcome.FAILED


def _described(error: BaseException) -> dict[str, Any]:
    lines = traceback.format_exception(error)
    return {
        "type": type(error).__name__,
        "message": str(error)[:4000] or type(error).__name__,
        "traceback": "".join(lines)[-8000:],
    }


def _context(task: Claimed, exchange: Exchange) -> Context:
    return Context(
        task_id=task.id,
        run_id=task.run_id,
        key=task.key,
        capability=task.capability,
        attempt=task.tries,
        turn=task.turn,
        inputs=task.inputs,
        timeout_s=task.timeout_s,
        write_log=_Log(task),
        ask_cancelled=_Cancelled(task),
        shared=exchange,
        post=exchange,
    )


class _Log:
    """Writes an attempt's lines until its log is full; a flood costs no query after that."""

    def __init__(self, task: Claimed) -> None:
        self._task = task
        self._open = True

    def __call__(self, text: str, stream: str) -> None:
        if not self._open:
            return
        try:
            task = self._task
            self._open = tasklogs.append(task.project_id, task.id, task.attempt, [(stream, text)])
        except (OperationalError, InterfaceError):
            # A log line is not worth the task.
            release()


class _Cancelled:
    """Asks whether this attempt still counts; asking is its sign of life."""

    def __init__(self, task: Claimed) -> None:
        self._task = task
        self._asked_at = time.monotonic()
        self._answer = False

    def __call__(self) -> bool:
        if self._answer or time.monotonic() - self._asked_at < _ASK_EVERY_S:
            return self._answer
        self._asked_at = time.monotonic()
        try:
            self._answer = not beat(self._task.id, self._task.fence, apart=True)
        except (OperationalError, InterfaceError):
            release()
        return self._answer
