"""`manage.py up` from outside: it answers, it repairs itself, it leaves nothing behind."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import stat
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from opscore.config import ROOT
from opscore.platform.probe import Probe
from tests.conftest import WaitUntil

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]
AGENTS = """
agents:
  echo:
    kind: command
    capabilities: [echo]
    command: [cat]
"""
BROKEN = """
  broken:
    kind: worker
    capabilities: [x]
    handlers: no.such_module
"""


class Up:
    """One `manage.py up` on a var folder of its own."""

    def __init__(self, var_dir: Path) -> None:
        self.var_dir = var_dir
        self.output = var_dir / "up.out"
        self.agents_file = var_dir / "agents.yaml"
        self.agents_file.write_text(AGENTS)
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, *options: str, deaf: bool = False) -> None:
        env = {name: word for name, word in os.environ.items() if not name.startswith("OPSCORE_")}
        env |= {"OPSCORE_VAR_DIR": str(self.var_dir), "OPSCORE_AGENTS_FILE": str(self.agents_file)}
        command = [sys.executable, "manage.py", "up", "--port", "0", *options]
        if deaf:
            # What a shell without job control does to its background jobs.
            command = ["sh", "-c", 'trap "" INT; exec "$@"', "sh", *command]
        with self.output.open("wb") as output:
            self.process = subprocess.Popen(
                command,
                cwd=ROOT,
                env=env,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def send(self, sign: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(sign)

    def ended(self) -> int | None:
        assert self.process is not None
        return self.process.poll()

    def text(self) -> str:
        return self.output.read_text()

    def address(self) -> dict[str, str]:
        """Return what `opscore.env` says; empty until everything answers."""
        if self.ended() is not None:
            pytest.fail(f"up ended early:\n{self.text()}")
        file = self.var_dir / "opscore.env"
        if not file.exists():
            return {}
        return dict(line.split("=", 1) for line in file.read_text().splitlines())

    def processes(self) -> list[psutil.Process]:
        """Return every process of this platform, whoever its parent is now."""
        mine = []
        for process in psutil.process_iter():
            try:
                words = (process.environ().get("OPSCORE_VAR_DIR", ""), process.cwd())
                alive = process.status() != psutil.STATUS_ZOMBIE
            except psutil.Error:
                continue
            if alive and any(word.startswith(str(self.var_dir)) for word in words):
                mine.append(process)
        return mine

    def named(self, words: str) -> list[psutil.Process]:
        """Return those of them whose command line has these words."""
        return [one for one in self.processes() if words in " ".join(one.cmdline())]


@pytest.fixture
def up(var_dir: Path) -> Iterator[Up]:
    up = Up(var_dir)
    yield up
    if up.process and up.process.poll() is None:
        for process in up.processes():
            with contextlib.suppress(psutil.Error):
                print(process.pid, process.ppid(), process.status(), *process.cmdline())
        print(up.text())
        up.process.kill()
        up.process.wait()
    for process in up.processes():
        with contextlib.suppress(psutil.Error):
            process.kill()


def test_up_answers_repairs_itself_and_leaves_no_process_behind(
    up: Up, wait_until: WaitUntil
) -> None:
    up.start("--flower")
    address = wait_until(up.address, 90)
    env_file = up.var_dir / "opscore.env"
    assert stat.S_IMODE(env_file.stat().st_mode) == 0o600
    wait_until(lambda: f"{address['OPSCORE_API_KEY']} (shown once)" in up.text())
    probe = Probe(address["OPSCORE_API_URL"], address["OPSCORE_API_KEY"])
    assert probe.healthy()
    assert {agent.name for agent in probe.agents() if agent.is_ready} >= {"echo-1"}

    _flower_asks_for_a_password_and_changes_nothing(up, wait_until)
    _a_second_up_is_refused_in_one_sentence(up, wait_until)
    _a_killed_web_server_comes_back(up, probe, wait_until)

    up.send(signal.SIGTERM)
    wait_until(lambda: up.ended() is not None, 60)
    assert up.ended() == 0, up.text()
    assert "Stopping: agents finish their tasks, in 30 s at most" in up.text()
    assert up.processes() == []
    assert not env_file.exists()

    _a_second_start_keeps_the_key_and_names_what_cannot_start(up, address, wait_until)

    # Killed hard, it still leaves nothing behind.
    up.start()
    wait_until(up.address, 90)
    up.send(signal.SIGKILL)
    wait_until(lambda: up.processes() == [], 60)


@pytest.mark.parametrize("cpu_s", [0.15, 0.4, 0.8])
def test_interrupt_while_it_starts_is_no_traceback(
    up: Up, wait_until: WaitUntil, cpu_s: float
) -> None:
    up.start()
    assert up.process is not None
    running = psutil.Process(up.process.pid)
    # A fast machine may have begun before it has used so much.
    begun = up.var_dir / "opscore.env"
    wait_until(lambda: running.cpu_times().user > cpu_s or begun.exists())
    up.send(signal.SIGINT)
    wait_until(lambda: up.ended() is not None, 60)
    assert up.ended() in {0, 130}
    assert "Traceback" not in up.text()
    # A process that was just being started gets its parent's end as a signal.
    wait_until(lambda: up.processes() == [])


def test_a_part_that_cannot_start_is_reported_with_its_last_words(
    up: Up, wait_until: WaitUntil
) -> None:
    up.agents_file.write_text("agents: {wrong: {kind: wroker}}")
    up.start()
    wait_until(lambda: up.ended() is not None, 90)
    assert up.ended() == 1
    assert "supervisor ended with" in up.text()
    assert "'wroker'" in up.text()
    assert up.processes() == []


def _a_second_start_keeps_the_key_and_names_what_cannot_start(
    up: Up, address: dict[str, str], wait_until: WaitUntil
) -> None:
    up.agents_file.write_text(f"{AGENTS}{BROKEN}")
    up.start(deaf=True)
    again = wait_until(up.address, 90)
    assert again["OPSCORE_API_KEY"] == address["OPSCORE_API_KEY"]
    wait_until(lambda: "Logs" in up.text())
    assert "shown once" not in up.text()

    given_up = "supervisor: agent broken-1 was given up: it died: exit code 78 | The handler module"
    assert up.text().count(given_up) == 1
    assert "Only" not in up.text()

    up.send(signal.SIGINT)
    wait_until(lambda: up.ended() is not None, 60)
    assert up.ended() == 0, up.text()


def _a_killed_web_server_comes_back(up: Up, probe: Probe, wait_until: WaitUntil) -> None:
    assert up.process is not None
    web, *_ = (one for one in up.named("granian") if one.ppid() == up.process.pid)
    web.kill()
    wait_until(lambda: "web ended with SIGKILL" in up.text())
    wait_until(probe.healthy, 30)


def _flower_asks_for_a_password_and_changes_nothing(up: Up, wait_until: WaitUntil) -> None:
    found = wait_until(lambda: re.search(r"(http://127\.0\.0\.1:\d+) \(admin / (\S+)\)", up.text()))
    assert found is not None
    url, password = found[1], found[2]

    def status(path: str, *, key: bool, data: bytes | None = None) -> int:
        handler = urllib.request.HTTPBasicAuthHandler(_passwords(url, password) if key else None)
        opener = urllib.request.build_opener(handler)
        try:
            return int(opener.open(url + path, data=data, timeout=10).status)
        except urllib.error.HTTPError as error:
            return error.code
        except urllib.error.URLError:
            return 0

    wait_until(lambda: status("/healthcheck", key=False) == 200, 30)
    assert status("/workers", key=False) == 401
    assert status("/workers", key=True) == 200
    assert status("/metrics", key=True) == 404
    assert status("/api/worker/shutdown/anybody", key=True, data=b"") in {403, 404, 405}


def _a_second_up_is_refused_in_one_sentence(up: Up, wait_until: WaitUntil) -> None:
    second = Up(up.var_dir)
    second.output = up.var_dir / "second.out"
    second.start()
    wait_until(lambda: second.ended() is not None)
    assert second.ended() == 1
    assert "already runs in" in second.text()
    assert "Traceback" not in second.text()


def _passwords(url: str, password: str) -> urllib.request.HTTPPasswordMgrWithDefaultRealm:
    passwords = urllib.request.HTTPPasswordMgrWithDefaultRealm()
    passwords.add_password(None, url, "admin", password)
    return passwords
