"""Celery tasks of a user's own as handlers: their name is the capability, nothing else changes."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from importlib import import_module
from typing import Any, TypeVar

from agents.handlers import Context, HandlerError, handler
from opscore.celery import app
from tasks.retries import RetryPolicy
from workflows.signatures import Traits

T = TypeVar("T")
#: A task with `max_retries=None` is tried again for ever; we stop here.
_FOR_EVER = 1000
_durable: dict[str, Any] = {}


def durable(task: T) -> T:
    """Make a Celery task a handler whose capability is the task's name; goes above `@shared_task`.

    The function gets its own arguments, `self.request` with `id` (the same in every attempt)
    and `retries`. It may be called and sent as before.
    """
    if not _is_task(task):
        raise TypeError(f"@durable stands above @shared_task or @app.task, not on {task!r}")
    named: Any = task
    perform = _performer(named)
    # Agents tell by the module which handlers are theirs.
    perform.__module__ = _function(named).__module__
    handler(named.name)(perform)
    _durable[named.name] = task
    return task


def adopt(module: str) -> None:
    """Do `durable` to every Celery task of a module that stays as it is.

    Raises ImportError, and ValueError when the module holds no Celery task.
    """
    found = [value for value in vars(import_module(module)).values() if _is_task(value)]
    if not found:
        raise ValueError(f"the module {module} holds no Celery task")
    for task in found:
        durable(task)


def names() -> set[str]:
    """Return the tasks that this process knows as durable."""
    return set(_durable)


def traits(name: str) -> Traits:
    """Return what the task says about retries and time, where this process knows the task."""
    task = _durable.get(name) or app.tasks.get(name)
    if task is None:
        return Traits()
    limit_s = getattr(task, "time_limit", None)
    return Traits(_retry_policy(task), None if limit_s is None else float(limit_s))


def _is_task(value: Any) -> bool:
    return hasattr(value, "push_request") and isinstance(getattr(value, "name", None), str)


def _function(task: Any) -> Any:
    """Return the user's own function, or the class of a task that is a class."""
    function = getattr(task, "__wrapped__", None) or getattr(task, "_orig_run", None) or task.run
    return getattr(function, "__func__", function)


def _performer(task: Any) -> Callable[[Context], Any]:
    def perform(context: Context) -> Any:
        """Call the Celery task as its worker would."""
        args, kwargs = _arguments(context.inputs)
        task.push_request(
            id=str(context.task_id),
            root_id=str(context.run_id),
            args=args,
            kwargs=kwargs,
            retries=context.attempt - 1,
            # `self.retry()` then raises what went wrong; the engine waits, not the worker.
            called_directly=True,
        )
        try:
            return _body(task)(*args, **kwargs)
        except HandlerError:
            raise
        except Exception as error:
            if _asks_for_retry(error):
                raise
            raise _FinalError(error) from error
        finally:
            task.pop_request()

    return perform


def _arguments(inputs: dict[str, Any]) -> tuple[list[Any], dict[str, Any]]:
    """Read what a canvas gives, {args, kwargs}; a workflow's `with` may hold the names directly."""
    if not inputs.keys() <= {"args", "kwargs"}:
        return [], inputs
    args, kwargs = inputs.get("args", []), inputs.get("kwargs", {})
    if not isinstance(args, list) or not isinstance(kwargs, dict):
        message = "`args` must be a list and `kwargs` a mapping"
        raise HandlerError(message, type="invalid_inputs", retryable=False)
    return args, kwargs


def _body(task: Any) -> Callable[..., Any]:
    """Return what a worker calls: `run`, or a `__call__` that the user's base class defines."""
    own = not task.__class__.__call__.__module__.startswith("celery.")
    call: Callable[..., Any] = task if own else task.run
    return call


class _FinalError(HandlerError):
    """What Celery would not have tried again."""

    def __init__(self, error: Exception) -> None:
        message = str(error)[:4000] or type(error).__name__
        super().__init__(message, type=type(error).__name__, retryable=False)
        self._traceback = "".join(traceback.format_exception(error))[-8000:]

    def as_dict(self) -> dict[str, Any]:
        return {**super().as_dict(), "traceback": self._traceback}


def _asks_for_retry(error: Exception) -> bool:
    """Tell whether Celery's own `retry` raised it: by `autoretry_for`, or called by the task."""
    return any(
        frame.f_code.co_name == "retry" and frame.f_globals.get("__name__") == "celery.app.task"
        for frame, _ in traceback.walk_tb(error.__traceback__)
    )


def _retry_policy(task: Any) -> RetryPolicy:
    said = getattr(task, "retry_kwargs", None) or {}
    limit = said.get("max_retries", task.max_retries)
    limit = _FOR_EVER if limit is None else int(limit)
    first_s = float(getattr(task, "retry_backoff", False) or 0)
    if not first_s:
        delay_s = float(said.get("countdown", task.default_retry_delay))
        return RetryPolicy(limit, initial_s=delay_s, factor=1.0, max_s=delay_s, jitter="none")
    return RetryPolicy(
        limit,
        initial_s=first_s,
        max_s=float(getattr(task, "retry_backoff_max", 600)),
        jitter="full" if getattr(task, "retry_jitter", True) else "none",
    )
