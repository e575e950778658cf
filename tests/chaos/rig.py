"""The platform as `make up` runs it, on services of its own, with a second host, made to be hurt."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import psutil
import psycopg
from psycopg.rows import dict_row

from opscore.config import Config
from opscore.embedded.services import Server
from opscore.platform import Platform, PlatformError
from opscore.platform.parts import Part
from tests.chaos import graphs, invariants
from tests.chaos.rabbitmq import RabbitMQ

AGENTS = """
agents:
  chaos:
    kind: worker
    handlers: tests.chaos.handlers
    capabilities: [chaos_plain, chaos_exact, chaos_flaky]
    replicas: {replicas}
"""
#: Agents that were silent for that long have ended: the lease.
LEASE_S = 3.0
_SETTINGS: dict[str, Any] = {
    "port": 0,
    # Said here because the tests' own services are named in the environment.
    "database_url": "",
    "session_ttl_s": LEASE_S,
    "hint_stale_s": 2.0,
    "drain_s": 5.0,
    # The storm kills more agents than any task deserves: every run must complete all the same.
    "max_losses": 1000,
    "node_name": "first",
}
_READY = "SELECT count(*) AS n FROM agents_agent WHERE status = 'active'"
#: Parts that are hosts: a supervisor, its zygote, its agents.
HOSTS = ("supervisor", "second")


class Rig(Platform):
    """A platform whose parts come back as `make up` brings them back, unless they are held down."""

    def __init__(self, config: Config, broker: Server | None, sabotage: str = "") -> None:
        super().__init__(config, say=lambda _: None)
        self.sabotage = sabotage
        self._own_broker = broker
        self._down_until: dict[str, float] = {}

    @property
    def servers(self) -> dict[str, Server]:
        """The services that this rig may kill."""
        found = {"database": self.services.postgres, "broker": self.broker}
        return {name: server for name, server in found.items() if server is not None}

    @property
    def broker(self) -> Server | None:
        """The broker, if it is the rig's own."""
        return self.services.valkey or self._own_broker

    def part(self, name: str) -> Part:
        """Return a part by its name."""
        return next(part for part in self.parts if part.name == name)

    def host(self, name: str) -> list[psutil.Process]:
        """Return a host's processes: supervisor, zygote, agents; empty while it is down."""
        try:
            supervisor = psutil.Process(self.part(name).pid or -1)
            return [supervisor, *supervisor.children(recursive=True)]
        except (psutil.NoSuchProcess, ValueError):
            return []

    def keep_down(self, name: str, seconds: float) -> None:
        """Have a part or server that dies now come back after that time at the earliest."""
        self._down_until[name] = time.monotonic() + seconds

    def step(self) -> None:
        """Start again what died. Main thread only: servers end with the thread that began them."""
        for name, server in self.servers.items():
            if not server.runs() and self._may_run(name):
                self.services.relaunch(server)
        for part in self.parts:
            if self._may_run(part.name):
                # The growing delay is for parts that are broken themselves; these are killed.
                part._delay_s = 0.5
                part.keep_running()

    def wait(self, condition: Callable[[], Any], timeout_s: float) -> bool:
        """Step until the condition holds; False: it did not in time."""
        give_up_at = time.monotonic() + timeout_s
        while time.monotonic() < give_up_at:
            self.step()
            if condition():
                return True
            time.sleep(0.05)
        return False

    def ask(self, sql: str, params: Mapping[str, Any] | None = None) -> list[dict[str, Any]]:
        """Run one statement; raises psycopg.OperationalError while the database is away."""
        with psycopg.connect(
            self.services.database_url, connect_timeout=5, autocommit=True, row_factory=dict_row
        ) as connection:
            cursor = connection.execute(sql, params)
            return cursor.fetchall() if cursor.description else []

    def quiet(self) -> bool:
        """Tell whether every run has ended."""
        try:
            return not self.ask("SELECT 1 FROM tasks_run WHERE completed_at IS NULL LIMIT 1")
        except psycopg.OperationalError:
            return False

    def environment(self) -> dict[str, str]:
        """Return the platform's environment; a sabotaged one has settings of its own."""
        env = super().environment()
        # Who is killed leaves half a file of coverage behind, which spoils the others.
        env = {name: word for name, word in env.items() if not name.startswith("COVERAGE")}
        if self.sabotage:
            env["DJANGO_SETTINGS_MODULE"] = "tests.chaos.broken_settings"
            env["CHAOS_BREAK"] = self.sabotage
        return env

    def add_part(self, name: str, *command: str, **env: str) -> Part:
        """Start one more process of the platform and watch it like the others."""
        part = Part(name, [sys.executable, *command], self.config.var_dir / "log")
        address = {"CHAOS_URL": self.api_url, "CHAOS_KEY": self.api_key}
        part.start(self.environment() | address | env)
        self._stack.callback(part.stop)
        self.parts.append(part)
        return part

    def remove_part(self, part: Part) -> None:
        """Stop a process that `add_part` started."""
        self.parts.remove(part)
        part.stop()

    def _may_run(self, name: str) -> bool:
        return time.monotonic() >= self._down_until.get(name, 0.0)


@contextmanager
def start(
    folder: Path,
    *,
    broker: str = "redis",
    replicas: int = 3,
    sabotage: str = "",
    **settings: Any,
) -> Iterator[Rig]:
    """Start everything in a folder that the account of PostgreSQL can enter, with the workflows.

    `broker`: redis, rabbitmq (a server of its own) or the URL of one that must not be hurt.
    """
    agents = folder / "agents.yaml"
    agents.write_text(AGENTS.format(replicas=replicas))
    with ExitStack() as stack:
        own = stack.enter_context(RabbitMQ(folder)) if broker == "rabbitmq" else None
        url = own.url if own else "" if broker == "redis" else broker
        config = Config(
            **{**_SETTINGS, **settings}, var_dir=folder, agents_file=agents, broker_url=url
        )
        rig = Rig(config, own, sabotage)
        stack.enter_context(rig)
        rig.ask(invariants.OBSERVE)
        graphs.upload(rig.api_url, rig.api_key)
        rig.add_part("second", "manage.py", "supervise", OPSCORE_NODE_NAME="second")
        wanted = 2 * (replicas + 1)
        if not rig.wait(lambda: rig.ask(_READY)[0]["n"] >= wanted, 30):
            raise PlatformError("The second host did not come up.")
        yield rig


def broker_named(name: str) -> str:
    """Return what `start` takes: on a machine without RabbitMQ, one that its URL names."""
    if name != "rabbitmq" or RabbitMQ.installed():
        return name
    url = os.environ.get("OPSCORE_TEST_RABBITMQ_URL", "")
    if not url:
        sys.exit("There is no rabbitmq-server here; name one in OPSCORE_TEST_RABBITMQ_URL.")
    return url
