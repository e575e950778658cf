"""Celery workers that were started by hand: each registers itself and is an agent like others.

    celery -A opscore worker -Q default.lint -n lint-3@%h

Its handlers are those of `OPSCORE_HANDLERS`.
"""

from __future__ import annotations

import os
import re
import socket
import sys
from typing import Any
from uuid import UUID

from celery.concurrency.thread import TaskPool
from celery.signals import worker_init, worker_ready, worker_shutdown
from django.db import connections
from django.db.utils import DatabaseError

from agents import queues, registry, runtime, sessions, transitions
from agents.handlers import load
from agents.hearing import Patience, beat_every
from agents.models import AgentSession
from agents.pool import ThreadPool
from agents.self_check import SelfCheck
from opscore.config import listed, load_config
from opscore.logs import get_logger
from opscore.models import Project

log = get_logger(__name__)
#: The one of this process; agents that a supervisor started have none here.
_session: AgentSession | None = None


@worker_init.connect(weak=False)
def register(sender: Any, **_: Any) -> None:
    """Become an agent before the first message is taken."""
    global _session  # noqa: PLW0603 - a process has exactly one life
    if runtime.current() is not None:
        return
    if "prefork" in str(getattr(sender.pool_cls, "__module__", sender.pool_cls)):
        # Its processes would share one session: the death of one would go unseen, and a
        # connection of the parent would be inherited by every later one.
        sys.exit("Ops-Core needs one process for each worker: leave --pool away (or say solo).")
    if sender.pool_cls is TaskPool:  # somebody said --pool threads
        sender.pool_cls = ThreadPool
    consumed = sorted(sender.app.amqp.queues.consume_from)
    handlers = load(listed(load_config().handlers))
    project = Project.objects.get_or_create(slug="default")[0]
    words = [word for word in sorted(handlers) if queues.queue_name(project.slug, word) in consumed]
    name = re.sub(r"[^A-Za-z0-9_.@-]", "-", sender.hostname)[:100]
    slots = _slots(sender)
    agent, _created = registry.enrol(project, name, words, concurrency=slots)
    own = sender.app.amqp.queues.new_missing(queues.own(agent.pk))
    consumed.append(sender.app.amqp.queues.select_add(own).name)
    _session = sessions.start(
        agent, host=socket.gethostname(), pid=os.getpid(), queues=consumed, slots=slots
    )
    runtime.begin(runtime.Life(_session.pk, agent.name, handlers))
    # Nothing of this connection may reach forked pool processes.
    connections.close_all()


def _slots(worker: Any) -> int:
    """Return how many tasks the worker runs at once; `solo` runs one, whatever -c says."""
    solo = "solo" in str(worker.pool_cls).lower()
    return 1 if solo or not isinstance(worker.concurrency, int) else worker.concurrency


@worker_ready.connect(weak=False)
def begin(sender: Any, **_: Any) -> None:
    """Take work from now on, and beat from the worker's own timer."""
    if _session is None:
        return
    sessions.ready(_session.pk)
    config = load_config()
    every_s = beat_every(config.session_ttl_s, config.probe_s)
    patience = Patience.of(config.probe_s, every_s)
    check = SelfCheck(_session.agent_id, patience)
    sender.timer.call_repeatedly(every_s, _beat, (_session.pk, sender, check))


@worker_shutdown.connect(weak=False)
def leave(**_: Any) -> None:
    """End the session; what it could not finish is given back."""
    global _session
    session, _session = _session, None
    if session is None:
        return
    try:
        sessions.end([session.pk], "the worker was stopped", lost=False)
        transitions.change([session.agent_id], "terminated", reason="the worker was stopped")
    except DatabaseError as error:
        # Then its silence says it.
        log.warning("agent.not_signed_off", error=str(error).strip())
    connections.close_all()


def _beat(session_id: UUID, consumer: Any, check: SelfCheck) -> None:
    try:
        live = sessions.beat([session_id])
        paused = sessions.is_paused(session_id)
        runtime.consume(consumer, paused=paused)
        check.step(paused=paused)
    except DatabaseError as error:
        log.warning("agent.beat_failed", error=str(error).strip())
        connections.close_all()
        return
    if not live:
        _stop("its session was ended by somebody else")


def _stop(reason: str) -> None:
    from celery.worker import state  # noqa: PLC0415 - only inside a worker

    log.error("agent.stopping", reason=f"{reason}; whoever started this worker may start it again")
    # The exit code; Celery's loop looks at it between two events.
    vars(state)["should_stop"] = 1
