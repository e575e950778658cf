"""Every fault once, with work in flight: all of it goes on soon, once and in order.

One platform with services of its own and two hosts for all of these tests.
"""

from __future__ import annotations

import shutil
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random
from uuid import uuid4

import httpx
import pytest

from tests.chaos import invariants, rig
from tests.chaos.faults import FAULTS, Faults
from tests.chaos.rig import Rig

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("rig"), pytest.mark.timeout(150)]
#: A hint is stale after 2 s here; faults that last do so for up to 6 s.
SOON_S = 6 + 2 + 10.0
HELD = "SELECT count(*) AS n FROM tasks_task WHERE status = 'running'"
ACTIVE = "SELECT count(*) AS n FROM agents_agent WHERE status = 'active'"
# Runs that were alive at a moment and did nothing for that long after it.
IDLE = """
SELECT r.id FROM tasks_run r
 WHERE r.created_at < %(at)s AND coalesce(r.completed_at, 'infinity') > %(at)s
   AND coalesce(r.completed_at, 'infinity') > %(at)s::timestamptz + make_interval(secs => %(for)s)
   AND NOT EXISTS (SELECT FROM tasks_task t JOIN chaos_start s ON s.task_id = t.id
                    WHERE t.run_id = r.id AND s.at > %(at)s
                      AND s.at < %(at)s::timestamptz + make_interval(secs => %(for)s))
"""
MIXED = ("chain", "chain", "fork_join", "retrying", "slow", "slow")


@pytest.fixture(scope="module")
def running() -> Iterator[Rig]:
    # Not below pytest's folder: the account of PostgreSQL must be able to enter it.
    folder = Path(tempfile.mkdtemp(prefix="opscore-faults-"))
    folder.chmod(0o711)
    with rig.start(folder) as platform:
        yield platform
    shutil.rmtree(folder)


@pytest.fixture
def platform(running: Rig) -> Iterator[Rig]:
    """The platform, all of it well, and every run ended and sound after the test."""
    assert running.wait(lambda: _well(running), 40), "the platform did not recover"
    yield running
    found = invariants.violations(running.ask)
    assert not any(found.values()), found


def _well(platform: Rig) -> bool:
    try:
        health = httpx.get(f"{platform.api_url}/health", timeout=5).json()
        return bool(health["status"] == "ok" and platform.ask(ACTIVE)[0]["n"] >= 8)
    except (httpx.HTTPError, OSError):
        return False


def submit(platform: Rig, *workflows: str) -> None:
    with httpx.Client(headers={"Authorization": f"Bearer {platform.api_key}"}) as client:
        for name in workflows:
            url = f"{platform.api_url}/api/v1/workflows/{name}/execute"
            answer = client.post(url, json={"inputs": {"label": str(uuid4())}}, timeout=20)
            assert answer.status_code == 201, answer.text
    assert platform.wait(lambda: platform.ask(HELD)[0]["n"], 10)


def finish(platform: Rig, faults: Faults, within_s: float) -> None:
    def ended() -> bool:
        faults.undo()
        return platform.quiet()

    try:
        assert platform.wait(ended, within_s), invariants.violations(platform.ask)
    finally:
        faults.undo(everything=True)


@pytest.mark.parametrize("name", [name for name in FAULTS if name != "client"])
def test_fault_delays_and_changes_nothing(platform: Rig, name: str) -> None:
    faults = Faults(platform, Random(name))
    submit(platform, *MIXED)
    assert faults.inflict(name), "there was nothing to hurt"
    finish(platform, faults, SOON_S)


@pytest.mark.parametrize("name", ["broker_flushed", "broker_wiped"])
def test_all_runs_go_on_within_ten_seconds_of_a_wiped_broker(platform: Rig, name: str) -> None:
    faults = Faults(platform, Random(name))
    submit(platform, *("chain", "fork_join", "irregular") * 10)
    assert faults.inflict(name)
    at = platform.ask("SELECT now() AS at")[0]["at"]
    finish(platform, faults, 60)
    assert platform.ask(IDLE, {"at": at, "for": 10.0}) == []


def test_api_answers_503_while_the_database_is_stopped_three_times(platform: Rig) -> None:
    faults = Faults(platform, Random(6))
    submit(platform, *("chain", "fork_join", "irregular") * 5)
    over = threading.Event()
    with ThreadPoolExecutor(3) as pool:
        askers = [pool.submit(_ask_on, platform, n, over) for n in range(3)]
        for _ in range(3):
            assert faults.inflict("database")
            assert platform.wait(lambda: not platform.servers["database"].runs(), 5)
            assert platform.wait(lambda: _answers(platform), 20)
        over.set()
        answers = sum((asker.result() for asker in askers), Counter[str]())
    assert set(answers) <= {"2xx", "503 with Retry-After"}, answers
    assert answers["2xx"] > 0
    assert answers["503 with Retry-After"] > 0
    finish(platform, faults, 60)


def _ask_on(platform: Rig, number: int, over: threading.Event) -> Counter[str]:
    """Ask without a pause, reading and starting; count the kinds of answers."""
    answers: Counter[str] = Counter()
    base = f"{platform.api_url}/api/v1"
    headers = {"Authorization": f"Bearer {platform.api_key}"}
    with httpx.Client(headers=headers, timeout=30) as client:
        while not over.is_set():
            if number:
                answer = client.get(f"{base}/runs?limit=5")
            else:
                key = {"Idempotency-Key": str(uuid4())}
                url = f"{base}/workflows/retrying/execute"
                answer = client.post(url, json={"inputs": {}}, headers=key)
            again = " with Retry-After" if "Retry-After" in answer.headers else ""
            kind = "2xx" if answer.is_success else f"{answer.status_code}{again}"
            answers[kind] += 1
            time.sleep(0.05)  # not to wait for anything: three busy loops would starve the agents
    return answers


def _answers(platform: Rig) -> bool:
    answer = httpx.get(f"{platform.api_url}/ready", timeout=5)
    return answer.status_code == 200


def test_without_beat_the_supervisors_repair(platform: Rig) -> None:
    faults = Faults(platform, Random(7))
    platform.keep_down("beat", 120)
    try:
        assert faults.inflict("beat")
        submit(platform, *MIXED)
        assert faults.inflict("broker_flushed")
        assert faults.inflict("agent")
        finish(platform, faults, 60)
        assert platform.part("beat").ended()
    finally:
        platform.keep_down("beat", 0)


def test_a_second_beat_changes_nothing(platform: Rig) -> None:
    schedule = f"--schedule={platform.config.var_dir / 'second-beat'}"
    beat = ["-m", "celery", "-A", "opscore", "beat", "--pidfile=", "-l", "WARNING", schedule]
    second = platform.add_part("second-beat", *beat)
    try:
        failed = "SELECT count(*) AS n FROM tasks_attempt WHERE outcome = 'failed'"
        before = platform.ask(failed)[0]["n"]
        submit(platform, *["retrying"] * 5)
        finish(platform, Faults(platform, Random(8)), 30)
        assert second.pid
        # Two tasks of each run fail, twice and once: every retry was woken once.
        assert platform.ask(failed)[0]["n"] - before == 5 * 3
    finally:
        platform.remove_part(second)
