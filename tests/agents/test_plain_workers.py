"""Celery workers that somebody starts by hand."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from agents import queues, registry, sessions
from agents.models import Agent, AgentSession
from opscore.celery import app
from opscore.config import ROOT
from opscore.models import Project
from tests.agents.conftest import HANDLERS
from tests.conftest import WaitUntil

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def worker(project: Project, tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    with started(tmp_path) as process:
        yield process


@contextmanager
def started(folder: Path, *options: str, **settings: str) -> Iterator[subprocess.Popen[bytes]]:
    options = ("-c", "1", "-Q", "default.echo", "-n", "mine@here", *options)
    env = {"OPSCORE_HANDLERS": HANDLERS, "OPSCORE_SESSION_TTL_S": "6", **settings}
    with (folder / "worker.log").open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "celery", "-A", "opscore", "worker", *options],
            env={**os.environ, **env},
            cwd=ROOT,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    yield process
    if process.poll() is None:
        process.terminate()
        process.wait(30)
    print((folder / "worker.log").read_text()[-4000:])


def test_worker_started_by_hand_is_an_agent(
    worker: subprocess.Popen[bytes], wait_until: WaitUntil, tmp_path: Path
) -> None:
    wait_until(lambda: Agent.objects.filter(name="mine@here", status="active").exists(), 30)
    session = AgentSession.objects.get(ended_at=None)
    agent = session.agent
    assert session.queues == ["default.echo", queues.own(agent.pk)]
    assert (agent.capabilities, agent.concurrency) == (["echo"], 1)
    file = tmp_path / "done"
    app.send_task("tests.who", args=(str(file),), queue="default.echo")
    wait_until(lambda: file.exists() and file.read_text() == f"mine@here {session.pk}")
    began = session.seen_at
    wait_until(lambda: AgentSession.objects.get(pk=session.pk).seen_at > began)
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(30) == 0
    session.refresh_from_db()
    assert session.end_reason == "the worker was stopped"
    assert Agent.objects.get().status == "terminated"


def test_paused_worker_leaves_its_queue_alone_until_it_is_resumed(
    worker: subprocess.Popen[bytes], wait_until: WaitUntil, tmp_path: Path
) -> None:
    wait_until(lambda: Agent.objects.filter(status="active").exists(), 30)
    agent, session = Agent.objects.get(), AgentSession.objects.get()
    registry.pause(agent)
    _wait_for_beats(2, wait_until)
    file = tmp_path / "done"
    app.send_task("tests.who", args=(str(file),), queue="default.echo")
    _wait_for_beats(1, wait_until)
    assert not file.exists()
    registry.resume(agent)
    wait_until(lambda: file.exists() and file.read_text() == f"mine@here {session.pk}")


def test_worker_whose_session_was_ended_stops(
    worker: subprocess.Popen[bytes], wait_until: WaitUntil
) -> None:
    wait_until(lambda: Agent.objects.filter(status="active").exists(), 30)
    sessions.end([AgentSession.objects.get().pk], "ended by somebody")
    assert worker.wait(30) == 1


@pytest.mark.parametrize("options", [(), ("--pool", "threads")])
def test_worker_hears_on_when_celery_cannot_store_a_result(
    project: Project, tmp_path: Path, wait_until: WaitUntil, options: tuple[str, ...]
) -> None:
    # Nobody listens at port 1: the report of the chord's part fails, and so does the report of that.
    with started(tmp_path, *options, OPSCORE_RESULT_URL="redis://127.0.0.1:1/0"):
        wait_until(lambda: Agent.objects.filter(status="active").exists(), 30)
        body: Any = app.signature("tests.who", args=("nowhere",), chord_size=3)
        for n in range(3):
            app.send_task(
                "tests.who",
                args=(str(tmp_path / f"done{n}"),),
                queue="default.echo",
                group_id="a group",
                chord=body,
            )
        wait_until(lambda: all((tmp_path / f"done{n}").exists() for n in range(3)), 30)


def test_worker_with_forked_slots_is_refused_in_a_sentence(project: Project) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "celery", "-A", "opscore", "worker", "-P", "processes", "-c", "2"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert "leave --pool away" in done.stderr
    assert not AgentSession.objects.exists()


def _wait_for_beats(count: int, wait_until: WaitUntil) -> None:
    """A beat is written before the pause is looked up: the second one says that it was heeded."""
    seen = {AgentSession.objects.get().seen_at}

    def beat() -> bool:
        seen.add(AgentSession.objects.get().seen_at)
        return len(seen) > count

    wait_until(beat)
