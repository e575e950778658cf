"""Waits for a host's agents to come up; names those that cannot, with the reason."""

from __future__ import annotations

import socket
import time
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import datetime

import psycopg

from opscore.config import Config
from opscore.platform.probe import Probe, Seen, wanted_agents
from opscore.platform.sentences import sentence

_WITHIN_S = 30.0
_POLL_S = 0.05
_PLATFORM_SPEC = "platform"


def database_time(url: str) -> datetime:
    """Return now, by the clock that stamps the agents' changes."""
    with psycopg.connect(url, connect_timeout=5) as connection:
        row = connection.execute("SELECT now()").fetchone()
    if row is None:
        raise LookupError("the database has no time")
    now: datetime = row[0]
    return now


class Arrival:
    """The start of one host's agents. `since`: what is older was left by an earlier life."""

    def __init__(
        self, config: Config, probe: Probe, since: datetime, say: Callable[[str], None]
    ) -> None:
        self._host = config.node_name or socket.gethostname()
        self._wanted = wanted_agents(config.agents_file, probe.set_sizes(self._host))
        self._probe = probe
        self._since = since
        self._say = say
        self._named: set[str] = set()

    def wait(self, check: Callable[[], None], within_s: float = _WITHIN_S) -> None:
        """Wait until every agent is ready or given up, calling `check` all the time."""
        give_up_at = time.monotonic() + within_s
        while True:
            seen = self._probe.agents()
            ours = [agent for agent in seen if self._is_ours(agent)]
            self._name_given_up(ours)
            wanted = self._wanted - self._stopped(seen)
            agents = [agent for agent in ours if self._in_file(agent) in wanted]
            ready = sum(agent.is_ready for agent in agents)
            given_up = sum(agent.status == "error" for agent in agents)
            if ready + given_up >= len(wanted):
                return
            check()
            if time.monotonic() > give_up_at:
                self._say_how_many(agents, ready, len(wanted))
                return
            time.sleep(_POLL_S)

    def _is_ours(self, agent: Seen) -> bool:
        is_theirs = agent.host != self._host or agent.spec == _PLATFORM_SPEC
        is_new = agent.changed_at >= self._since
        return not is_theirs and is_new and agent.desired == "running"

    def _stopped(self, agents: Sequence[Seen]) -> set[str]:
        """Return which agents of the file an operator has stopped: they stay down."""
        return {
            self._in_file(agent)
            for agent in agents
            if agent.host == self._host and agent.desired == "stopped"
        }

    def _in_file(self, agent: Seen) -> str:
        """Return the name that the host's file gives the agent; a taken one got the host's."""
        return agent.name.removesuffix(f"@{self._host}")

    def _name_given_up(self, agents: Sequence[Seen]) -> None:
        for agent in agents:
            if agent.status == "error" and agent.name not in self._named:
                self._named.add(agent.name)
                facts = {"agent": agent.name, "reason": agent.reason}
                self._say(f"supervisor: {sentence('agent.error', facts)}")

    def _say_how_many(self, agents: Sequence[Seen], ready: int, wanted: int) -> None:
        counts = Counter(agent.status for agent in agents if not agent.is_ready)
        counts["not begun"] = wanted - len(agents)
        others = ", ".join(f"{count} {status}" for status, count in counts.items() if count)
        self._say(f"Only {ready} of {wanted} agents are active ({others}).")
