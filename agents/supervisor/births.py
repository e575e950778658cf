"""How a process begins: its session, its key, its pipes, and the order to the zygote."""

from __future__ import annotations

import errno
import os
import resource
import socket
from contextlib import ExitStack
from uuid import UUID

from agents import transitions
from agents.supervisor import processes, records
from agents.supervisor.children import Child
from agents.supervisor.ledger import Ledger
from agents.supervisor.nursery import Nursery
from agents.supervisor.orders import Order
from agents.supervisor.records import Wanted
from agents.supervisor.scribe import Scribe
from agents.supervisor.wire import Wire


class Births:
    """Starts the processes of one host."""

    def __init__(self, ledger: Ledger, nursery: Nursery, scribe: Scribe, beat_s: float) -> None:
        self._ledger = ledger
        self._nursery = nursery
        self._scribe = scribe
        self._beat_s = beat_s
        self._keys: dict[UUID, str] = {}
        self._ends: dict[UUID, tuple[int, int]] = {}

    def prepare(self, agent: Wanted, serving: list[str], now: float) -> Child:
        """Begin a session for a process, which `give` has forked then.

        Raises DatabaseError, and OSError without a descriptor left; then nothing is left open.
        """
        with ExitStack() as undo:
            mine, its = socket.socketpair()
            undo.callback(mine.close)
            undo.callback(its.close)
            writing, roll = self._scribe.pipe(self._ledger.log_of(agent))
            undo.callback(os.close, writing)
            spec = self._ledger.specs.get(agent.spec)
            most = spec.recycle.max_tasks if spec else None
            session = records.start_session(agent.id, self._ledger.host, serving, most)
            if agent.polls:
                self._keys[session.pk] = records.key_for(agent, session.pk)
            undo.pop_all()
        mine.setblocking(False)
        self._ends[session.pk] = (its.detach(), writing)
        return Child(
            agent,
            session.pk,
            Wire(mine),
            output=roll,
            queues=serving,
            started=now,
            heard=now,
            paused=agent.paused,
        )

    def give(self, child: Child) -> bool:
        """Have the zygote fork it; False: there is no zygote."""
        return self._nursery.fork(self._order(child), *self._ends.pop(child.session_id))

    def check_room(self, agents: int) -> None:
        """Raise OSError when this process cannot watch one agent more than so many."""
        most = processes.most_agents()
        if most is not None and agents >= most:
            files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
            why = (
                f"with its limit of {files} open files (ulimit -n) this host can have {most} "
                "agents at once; raise the limit or make its pools smaller"
            )
            raise OSError(errno.EMFILE, why)

    def refuse(self, agent: Wanted, error: OSError) -> None:
        """Write why an agent is not started; once, however often it is tried."""
        if agent.status != "error":
            transitions.begin([agent.id])
            reason = f"it cannot be started: {error.strerror or error}"
            transitions.change([agent.id], "error", reason=reason)

    def _order(self, child: Child) -> Order:
        agent = child.agent
        config, host = self._ledger.config, self._ledger.host
        spec = self._ledger.specs.get(agent.spec)
        return Order(
            session_id=str(child.session_id),
            agent_id=str(agent.id),
            agent=agent.name,
            host=host,
            spec=spec.as_dict() if spec else {},
            capabilities=agent.capabilities,
            queues=child.queues,
            paused=agent.paused,
            beat_s=self._beat_s,
            api_url=config.api_address,
            api_key=self._keys.pop(child.session_id, ""),
            mark=processes.mark_of(host, str(config.var_dir), str(child.session_id)),
        )
