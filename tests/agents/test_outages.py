"""Agents and their supervisor while the broker or the database is away."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import psycopg
import pytest
from celery import Celery
from django.db import connection

from agents.models import AgentSession
from opscore.database import query
from opscore.embedded.binaries import valkey_server
from opscore.embedded.children import free_port
from tests.agents.conftest import HANDLERS, Host
from tests.conftest import WaitUntil

ECHO = f"""
agents:
  echo: {{kind: worker, handlers: {HANDLERS}, capabilities: [echo]}}
"""

_TERMINATE_OTHERS = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid()"""


class Broker:
    """A Valkey that a test may stop and start again."""

    def __init__(self) -> None:
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = [str(valkey_server()), "--port", str(self.port), "--save", ""]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL)

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def touch(self, path: Path) -> None:
        """Send a job as soon as the broker takes it."""
        with Celery(broker=self.url, set_as_current=False) as sender:
            sender.conf.broker_transport_options = {
                "priority_steps": list(range(10)),
                "queue_order_strategy": "priority",
            }
            sender.send_task("tests.touch", args=(str(path),), queue="default.echo", retry=True)


@pytest.fixture
def broker() -> Iterator[Broker]:
    broker = Broker()
    yield broker
    broker.stop()


def text(path: Path) -> str:
    return path.read_text() if path.exists() else ""


def test_broker_that_comes_late_only_delays(
    start_host: Callable[..., Host], broker: Broker, wait_until: WaitUntil, tmp_path: Path
) -> None:
    host = start_host(ECHO, OPSCORE_BROKER_URL=broker.url, OPSCORE_SESSION_TTL_S="2")
    wait_until(lambda: AgentSession.objects.filter(agent__name="echo-1").exists(), 60)
    began = AgentSession.objects.get(agent__name="echo-1")
    heard_until = time.monotonic() + 3  # longer than an agent may be silent
    wait_until(lambda: time.monotonic() > heard_until)
    assert host.status("echo-1") == "initializing"
    broker.start()
    assert host.ready("echo-1").pk == began.pk
    broker.touch(tmp_path / "done")
    wait_until(lambda: text(tmp_path / "done").startswith("finished"))


def test_agents_survive_a_restart_of_the_broker(
    start_host: Callable[..., Host], broker: Broker, wait_until: WaitUntil, tmp_path: Path
) -> None:
    broker.start()
    host = start_host(ECHO, OPSCORE_BROKER_URL=broker.url, OPSCORE_SESSION_TTL_S="2")
    session = host.ready("echo-1")
    broker.stop()
    away_until = time.monotonic() + 3  # longer than an agent may be silent
    wait_until(lambda: time.monotonic() > away_until)
    broker.start()
    broker.touch(tmp_path / "done")
    wait_until(lambda: text(tmp_path / "done") == f"finished {session.pid}")
    assert host.ready("echo-1").pk == session.pk


@contextmanager
def database_closed() -> Iterator[None]:
    """Throw everybody else out of the tests' database and let nobody in."""
    own = connection.settings_dict
    name = own["NAME"]
    given = {"host": own["HOST"], "port": own["PORT"], "user": own["USER"]}
    login = {key: value for key, value in given.items() if value}
    outside = psycopg.connect(
        dbname="postgres", password=own["PASSWORD"] or None, autocommit=True, **login
    )
    with outside:
        outside.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS false')
        try:
            query(_TERMINATE_OTHERS, {})
            yield
        finally:
            outside.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS true')
    outside.close()


def test_supervisor_stops_although_its_database_is_gone(start_host: Callable[..., Host]) -> None:
    host = start_host(ECHO)
    session = host.ready("echo-1")
    below = host.descendants()
    with database_closed():
        assert host.stop() == 0
    assert psutil.wait_procs(below, timeout=5)[1] == []
    # Nobody could write it: the next supervisor of this host does.
    assert session.ended_at is None
    host.start_again()
    host.next_session("echo-1", session)
    session.refresh_from_db()
    assert session.end_reason == "its supervisor died"


def test_supervisor_waits_for_a_database_that_comes_late(
    start_host: Callable[..., Host], wait_until: WaitUntil
) -> None:
    with database_closed():
        host = start_host(ECHO)
        log = host.folder / "supervise.log"
        wait_until(lambda: "database_away" in log.read_text(), 60)
    host.ready("echo-1")


def test_supervisor_that_waits_for_its_database_can_be_stopped(
    start_host: Callable[..., Host], wait_until: WaitUntil
) -> None:
    with database_closed():
        host = start_host(ECHO)
        log = host.folder / "supervise.log"
        wait_until(lambda: "database_away" in log.read_text(), 60)
        assert host.stop() == 1
    assert "The database does not answer" in log.read_text()


def test_supervisor_leaves_a_database_in_peace_that_is_away(
    start_host: Callable[..., Host], wait_until: WaitUntil
) -> None:
    host = start_host(ECHO)
    session = host.ready("echo-1")
    with database_closed():
        os.kill(session.pid or 0, signal.SIGKILL)
        away_until = time.monotonic() + 3
        wait_until(lambda: time.monotonic() > away_until)
        tries = (host.folder / "supervise.log").read_text().count("database_away")
    assert 1 <= tries <= 8
    host.next_session("echo-1", session)


def test_supervisor_outlives_its_database_connection(start_host: Callable[..., Host]) -> None:
    host = start_host(ECHO)
    first = host.ready("echo-1")
    query(_TERMINATE_OTHERS, {})
    os.kill(first.pid or 0, signal.SIGKILL)
    second = host.next_session("echo-1", first)
    assert second.pid != first.pid
    assert host.process.poll() is None
