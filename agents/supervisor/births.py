"""How a process begins: its session, its key, its pipes, and the order to the zygote."""

from __future__ import annotations

import os
import socket
from uuid import UUID

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

    def prepare(self, agent: Wanted, serving: list[str], now: float) -> tuple[Child, socket.socket]:
        """Begin a session for a process; return it with the end of the link that is its own.

        Raises DatabaseError, and then nothing is left open.
        """
        session = records.start_session(agent.id, self._ledger.host, serving)
        if agent.polls:
            self._keys[session.pk] = records.key_for(agent, session.pk)
        mine, its = socket.socketpair()
        mine.setblocking(False)
        child = Child(
            agent,
            session.pk,
            Wire(mine),
            output=-1,
            queues=serving,
            started=now,
            heard=now,
            paused=agent.paused,
        )
        return child, its

    def give(self, child: Child, link: socket.socket) -> bool:
        """Have the zygote fork it; False: there is no zygote."""
        writing, child.output = self._scribe.pipe(self._ledger.log_of(child.agent))
        sent = self._nursery.fork(self._order(child), link, writing)
        os.close(writing)
        link.close()
        return sent

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
            mark=processes.mark_of(host, str(config.var_dir)),
        )
