"""The faults: each does one bad thing to a rig and says in a few words what it did."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from random import Random
from typing import Any

import psutil
import psycopg
import redis
from kombu import Connection

from tests.chaos.rig import HOSTS, LEASE_S, Rig

PAUSE_S = 2.0
_BUSY = """
SELECT s.pid FROM agents_agentsession s JOIN tasks_task t ON t.session_id = s.id
 WHERE t.status = 'running' AND s.ended_at IS NULL AND s.pid IS NOT NULL
"""


@dataclass
class Faults:
    """Hurts one rig; what must be undone later is done by `undo`, called again and again."""

    rig: Rig
    rng: Random
    kills: list[tuple[int, datetime]] = field(default_factory=list)
    """Agent processes that were killed, and when."""
    _frozen: list[int] = field(default_factory=list)
    _later: list[tuple[float, Callable[[], None]]] = field(default_factory=list)

    def inflict(self, name: str) -> str:
        """Do a fault by name; returns what was done, '' when there was nothing to hurt."""
        done: str = getattr(self, name)()
        return done

    def names(self) -> list[str]:
        """Return the faults that this rig can bear."""
        own_broker = {"broker_killed", "broker_wiped", "broker_frozen"}
        without = set() if self.rig.broker else own_broker
        return [name for name in FAULTS if name not in without]

    def undo(self, *, everything: bool = False) -> None:
        """Undo what is due."""
        now = time.monotonic()
        due = [entry for entry in self._later if everything or entry[0] <= now]
        self._later = [entry for entry in self._later if entry not in due]
        for _, action in due:
            action()

    # ------------------------------------------------------------ processes

    def agent(self) -> str:
        """SIGKILL of an agent process, a busy one if there is any."""
        pid = self._some_agent()
        at = datetime.now(UTC)
        if not _signal(pid, signal.SIGKILL):
            return ""
        self.kills.append((pid, at))
        return f"agent {pid} killed"

    def zygote(self) -> str:
        """SIGKILL of a host's zygote, and with it of all its agents."""
        host = self.rng.choice(HOSTS)
        zygote = self._zygote(host)
        return f"zygote of {host} killed" if zygote and _signal(zygote.pid, signal.SIGKILL) else ""

    def supervisor(self) -> str:
        """SIGKILL of a supervisor."""
        return self._kill_part(self.rng.choice(HOSTS))

    def beat(self) -> str:
        """SIGKILL of beat."""
        return self._kill_part("beat")

    def web(self) -> str:
        """SIGKILL of the web server."""
        return self._kill_part("web")

    def zombie(self) -> str:
        """SIGSTOP of a whole host for two leases: it wakes up to find its tasks given away."""
        host = self._busy_host()
        frozen = [one.pid for one in self.rig.host(host)] if host else []
        # With both of them frozen nobody would give the tasks away.
        if self._frozen or not frozen:
            return ""
        self._frozen = [pid for pid in frozen if _signal(pid, signal.SIGSTOP)]
        self._in(2 * LEASE_S, self._wake_host)
        return f"host {host} frozen for {2 * LEASE_S:g} s"

    def _wake_host(self) -> None:
        # The agents first: a supervisor that is awake kills them at once for their silence.
        supervisor, *others = self._frozen
        for pid in others:
            _signal(pid, signal.SIGCONT)
        time.sleep(1)
        _signal(supervisor, signal.SIGCONT)
        self._frozen = []

    def frozen_agent(self) -> str:
        """SIGSTOP of one agent for two leases; its supervisor should not wait for it."""
        pid = self._some_agent()
        self._in(2 * LEASE_S, lambda: _signal(pid, signal.SIGCONT))
        return f"agent {pid} frozen" if _signal(pid, signal.SIGSTOP) else ""

    def client(self) -> str:
        """Death of a submitting client between its commit and the sending of hints."""
        if not any(part.name == "client" for part in self.rig.parts):
            return ""
        pid = self.rig.part("client").pid
        return "client dies after its next commit" if _signal(pid, signal.SIGUSR1) else ""

    # ------------------------------------------------------------ services

    def broker_flushed(self) -> str:
        """FLUSHALL, or a purge of every queue: the broker forgets every message."""
        url = self.rig.services.broker_url
        if url.startswith("amqp"):
            return f"{_purge(url, self._queues())} queues purged"
        with (
            contextlib.suppress(redis.RedisError),
            redis.Redis.from_url(url, socket_timeout=3) as r,
        ):
            r.flushall()
            return "broker flushed"
        return ""

    def broker_killed(self) -> str:
        """SIGKILL of the broker, which comes back with what it had written down."""
        self.rig.keep_down("broker", PAUSE_S)
        return f"broker down for {PAUSE_S:g} s" if self._signal_broker(signal.SIGKILL) else ""

    def broker_wiped(self) -> str:
        """SIGKILL of the broker, which comes back without any memory."""
        folder = self.rig.config.var_dir / "valkey" / "appendonlydir"
        if not folder.exists() or not self.broker_killed():
            return ""
        time.sleep(0.1)  # it may not write any more
        for file in folder.iterdir():
            file.unlink()
        return f"broker down for {PAUSE_S:g} s and wiped"

    def broker_frozen(self) -> str:
        """SIGSTOP of the broker for a while: connections stand, nobody answers."""
        self._in(PAUSE_S, lambda: self._signal_broker(signal.SIGCONT))
        return f"broker frozen for {PAUSE_S:g} s" if self._signal_broker(signal.SIGSTOP) else ""

    def database(self) -> str:
        """Immediate stop of PostgreSQL: every connection breaks, recovery from its log."""
        postgres = self.rig.services.postgres
        down_s = PAUSE_S / 2
        self.rig.keep_down("database", down_s)
        done = postgres is not None and postgres.runs() and _signal(postgres.pid, signal.SIGQUIT)
        return f"PostgreSQL stopped at once for {down_s:g} s" if done else ""

    # ------------------------------------------------------------ whom to hurt

    def _some_agent(self) -> int:
        """Return the process id of an agent, of a busy one if there is any; 0: there is none."""
        alive = {one.pid for host in HOSTS for one in self._agents(host)}
        return self.rng.choice(sorted(alive & self._busy()) or sorted(alive) or [0])

    def _busy_host(self) -> str:
        """Return a host with an agent at work; '': there is none."""
        busy = self._busy()
        hosts = [host for host in HOSTS if busy & {one.pid for one in self._agents(host)}]
        return self.rng.choice(hosts) if hosts else ""

    def _busy(self) -> set[int]:
        with contextlib.suppress(psycopg.OperationalError):
            return {row["pid"] for row in self.rig.ask(_BUSY)}
        return set()

    def _agents(self, host: str) -> list[psutil.Process]:
        zygote = self._zygote(host)
        with contextlib.suppress(psutil.NoSuchProcess):
            return zygote.children() if zygote else []
        return []

    def _zygote(self, host: str) -> psutil.Process | None:
        for one in self.rig.host(host)[1:]:
            with contextlib.suppress(psutil.Error):
                if one.name() == "ops-zygote":
                    return one
        return None

    def _kill_part(self, name: str) -> str:
        return f"{name} killed" if _signal(self.rig.part(name).pid, signal.SIGKILL) else ""

    def _signal_broker(self, number: signal.Signals) -> bool:
        server = self.rig.broker
        if server is None or not server.runs():
            return False
        with contextlib.suppress(ProcessLookupError):
            # RabbitMQ is a script and the virtual machine below it.
            os.killpg(server.pid, number)
            return True
        return False

    def _queues(self) -> list[str]:
        return [row["name"] for row in self.rig.ask("SELECT name FROM agents_queue")]

    def _in(self, seconds: float, action: Callable[[], object]) -> None:
        self._later.append((time.monotonic() + seconds, lambda: (action(), None)[1]))


#: In this order, so that a seed means the same everywhere.
FAULTS = (
    "agent",
    "zygote",
    "supervisor",
    "beat",
    "web",
    "zombie",
    "frozen_agent",
    "client",
    "broker_flushed",
    "broker_killed",
    "broker_wiped",
    "broker_frozen",
    "database",
)
#: How often a fault is chosen; the others once.
WEIGHTS = {"agent": 4}


class Storm(threading.Thread):
    """A seeded fault every few seconds, from a thread of its own.

    Of its own, because whoever also talks to the broker would wait for one that it has stopped.
    """

    def __init__(
        self, faults: Faults, names: list[str], say: Callable[[str], None], every_s: float = 2.0
    ) -> None:
        super().__init__(name="storm", daemon=True)
        self.count = 0
        self._faults, self._names, self._say, self._every_s = faults, names, say, every_s
        self._over = threading.Event()

    def run(self) -> None:
        """Rage until `calm`."""
        next_at = time.monotonic() + self._every_s
        while not self._over.wait(0.05):
            self._faults.undo()
            if time.monotonic() >= next_at:
                next_at += self._every_s
                self._one()
        self._faults.undo(everything=True)

    def calm(self) -> None:
        """End the faults and undo those that last."""
        self._over.set()
        self.join()

    def _one(self) -> None:
        weights = [WEIGHTS.get(name, 1) for name in self._names]
        name = self._faults.rng.choices(self._names, weights)[0]
        try:
            done = self._faults.inflict(name)
        except Exception as error:  # noqa: BLE001 - a fault that meets another one
            done = ""
            self._say(f"{name}: {type(error).__name__}: {error}")
        if done:
            self.count += 1
            self._say(done)


def _signal(pid: int, number: signal.Signals) -> bool:
    if pid <= 0:
        return False
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return False
    return True


def _purge(url: str, queues: list[str]) -> int:
    purged = 0
    for queue in queues:
        # A queue that does not exist closes the connection.
        with contextlib.suppress(Exception), Connection(url, connect_timeout=3) as connection:
            channel: Any = connection.default_channel
            channel.queue_purge(queue)
            purged += 1
    return purged
