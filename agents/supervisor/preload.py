"""Imports everything that an agent needs, once, so that a fork is ready in milliseconds."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterable, Mapping
from importlib import import_module

from agents.handlers import Handler, load
from opscore.errors import OpsCoreError

_PLATFORM = (
    "billiard.dummy",
    "billiard.pool",
    "celery.app.amqp",
    "celery.app.builtins",
    "celery.app.control",
    "celery.app.events",
    "celery.app.log",
    "celery.apps.worker",
    "celery.backends.base",
    "celery.concurrency.thread",
    "celery.events.dispatcher",
    "celery.worker.autoscale",
    "celery.worker.components",
    "celery.worker.consumer",
    "celery.worker.consumer.delayed_delivery",
    "celery.worker.control",
    "celery.worker.loops",
    "celery.worker.strategy",
    "agents.commands",
    "agents.supervisor.agent",
    "kombu.asynchronous.hub",
    "kombu.matcher",
    "kombu.pidbox",
    "kombu.transport.virtual.base",
    "kombu.utils.eventio",
    "psycopg",
    "django.db.backends.postgresql.base",
    "encodings.idna",
)
#: Broker's URL scheme -> its transport and the result backend that may come with it.
_BROKERS = {
    "redis": ("kombu.transport.redis", "celery.backends.redis"),
    "rediss": ("kombu.transport.redis", "celery.backends.redis"),
    "amqp": ("kombu.transport.pyamqp", "celery.backends.redis"),
    "amqps": ("kombu.transport.pyamqp", "celery.backends.redis"),
}

_handlers: dict[str, dict[str, Handler]] = {}


class HopelessError(OpsCoreError):
    """The agent's spec cannot work; another try would fail alike."""


def platform(broker_url: str) -> None:
    """Set Django and the Celery app up and import the worker; opens no connection."""
    import django  # noqa: PLC0415 - the zygote decides when

    django.setup()
    from opscore.celery import app  # noqa: PLC0415 - Django must be set up first

    app.loader.import_default_modules()
    app.finalize()
    for name in (*_PLATFORM, *_BROKERS.get(broker_url.partition(":")[0], ())):
        # A Celery that moved one of these modules only starts agents more slowly.
        with contextlib.suppress(ImportError):
            import_module(name)


def handlers(modules: Iterable[str]) -> None:
    """Import handler modules; what fails to import is reported by the agent that needs it."""
    for module in modules:
        with contextlib.suppress(Exception):
            handlers_of(module)


def handlers_of(module: str) -> Mapping[str, Handler]:
    """Import a module and return the handlers that it registers, by capability."""
    if module not in _handlers:
        registered = load([module])
        own = {
            word: found
            for word, found in registered.items()
            if f"{found.function.__module__}.".startswith(f"{module}.")
        }
        _handlers[module] = dict(own or registered)
    return _handlers[module]


def chosen(module: str, capabilities: Iterable[str]) -> dict[str, Handler]:
    """Return the handlers for these capabilities; raises HopelessError naming what is missing."""
    try:
        offered = handlers_of(module)
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
        raise HopelessError(f"The handler module {module} cannot be imported: {reason}") from error
    missing = sorted(set(capabilities) - set(offered))
    if missing:
        known = ", ".join(sorted(offered)) or "none"
        raise HopelessError(
            f"The module {module} registers no handler for {', '.join(missing)} (it has: {known}). "
            'Write @handler("…") above the function.'
        )
    return {word: offered[word] for word in capabilities}


def freeze() -> None:
    """Keep the garbage collector off what all forks share: touched pages are copied pages."""
    gc.collect()
    gc.freeze()
