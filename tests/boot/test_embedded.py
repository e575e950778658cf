"""The embedded services: cold, warm, after kill -9, in one folder once."""

from __future__ import annotations

import json
import os
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import psycopg
import pytest
import redis

from opscore.config import ROOT, Config
from opscore.embedded import ChildError, Services, ServicesBusyError
from opscore.embedded.postgres import Postgres
from opscore.embedded.valkey import Valkey
from tests.conftest import WaitUntil


def test_both_answer_with_their_password_only_and_leave_nothing_behind(config: Config) -> None:
    with Services(config) as services:
        with psycopg.connect(services.database_url) as connection:
            row = connection.execute("SELECT current_setting('fsync'), current_user").fetchone()
        assert row == ("on", "opscore")
        assert redis.Redis.from_url(services.broker_url).config_get("appendonly") == {
            "appendonly": "yes"
        }
        wrong = services.database_url.replace("opscore:", "opscore:x", 1)
        with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
            psycopg.connect(wrong)
        anonymous = services.broker_url.split("@")[1]
        with pytest.raises(redis.AuthenticationError):
            redis.Redis.from_url(f"redis://{anonymous}").ping()
        assert services.postgres is not None
        assert services.valkey is not None
        pids = [services.postgres.pid, services.valkey.pid]
    assert not [pid for pid in pids if psutil.pid_exists(pid)]
    assert not config.services_file.exists()


def test_the_urls_are_written_for_other_commands_and_for_their_owner_only(config: Config) -> None:
    with Services(config) as services:
        found = json.loads(config.services_file.read_text())
        assert found == {
            "database_url": services.database_url,
            "broker_url": services.broker_url,
        }
        assert stat.S_IMODE(config.services_file.stat().st_mode) == 0o600
        assert stat.S_IMODE((config.var_dir / "kept.json").stat().st_mode) == 0o600


def test_a_second_start_finds_the_data_of_the_first(config: Config) -> None:
    with Services(config) as services:
        _write_mark(services, "first")
    with Services(config) as services:
        assert _read_marks(services) == ("first", b"first")


def test_a_second_platform_in_the_same_folder_is_told_who_holds_it(config: Config) -> None:
    with (
        Services(config),
        pytest.raises(ServicesBusyError, match=f"process {os.getpid()}"),
    ):
        Services(config).__enter__()


@pytest.fixture
def holder(config: Config) -> Iterator[subprocess.Popen[str]]:
    """Another process that runs the services of this folder and says when they are up."""
    script = (
        "import sys; from pathlib import Path; from opscore.config import Config\n"
        "from opscore.embedded import Services\n"
        "with Services(Config(var_dir=Path(sys.argv[1]), database_url='', broker_url='')) as s:\n"
        "    print(s.postgres.pid, s.valkey.pid, flush=True)\n"
        "    sys.stdin.read()\n"
    )
    command = [sys.executable, "-c", script, str(config.var_dir)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT
    ) as process:
        yield process
        process.kill()


def _pids(holder: subprocess.Popen[str]) -> list[int]:
    assert holder.stdout is not None
    return [int(word) for word in holder.stdout.readline().split()]


def test_servers_end_when_their_parent_is_killed(
    holder: subprocess.Popen[str], wait_until: WaitUntil
) -> None:
    pids = _pids(holder)
    assert all(psutil.pid_exists(pid) for pid in pids)
    holder.kill()
    holder.wait()
    wait_until(lambda: not any(_runs(pid) for pid in pids))


def test_data_survive_when_everything_is_killed_at_once(
    holder: subprocess.Popen[str], config: Config
) -> None:
    pids = _pids(holder)
    _write_mark_to(json.loads(config.services_file.read_text()), "kept")
    for pid in [*pids, holder.pid]:
        os.kill(pid, signal.SIGKILL)
    holder.wait()
    with Services(config) as services:
        assert _read_marks(services)[0] == "kept"


def test_a_server_that_outlived_its_parent_is_ended_before_its_folder_is_used(
    holder: subprocess.Popen[str], config: Config
) -> None:
    pids = _pids(holder)
    # Stopped processes do not react to their parent's death for now.
    os.kill(pids[0], signal.SIGSTOP)
    holder.kill()
    holder.wait()
    os.kill(pids[0], signal.SIGCONT)
    with Services(config) as services:
        assert services.postgres is not None
        assert services.postgres.pid != pids[0]
        assert not _runs(pids[0])


def test_a_server_that_dies_comes_back_under_its_url_with_its_data(
    config: Config, wait_until: WaitUntil
) -> None:
    with Services(config) as services:
        assert services.postgres is not None
        assert services.valkey is not None
        _write_mark(services, "kept")
        urls = services.environment()
        assert services.keep_running() == ""
        for server in (services.postgres, services.valkey):
            os.kill(server.pid, signal.SIGKILL)
            wait_until(partial(_is_down, server))
            assert "SIGKILL" in services.keep_running()
        assert services.environment() == urls
        assert _read_marks(services)[0] == "kept"


def test_a_server_that_cannot_come_back_yet_is_tried_again_and_given_up_at_last(
    config: Config, wait_until: WaitUntil, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Services(config) as services:
        assert services.valkey is not None
        server = services.valkey
        place = urlsplit(services.broker_url)

        def kill() -> None:
            os.kill(server.pid, signal.SIGKILL)
            wait_until(partial(_is_down, server))

        kill()
        with socket.create_server((str(place.hostname), int(place.port or 0))):
            assert "is tried again" in services.keep_running()
        assert "was started again" in services.keep_running()
        kill()
        with socket.create_server((str(place.hostname), int(place.port or 0))):
            assert "is tried again" in services.keep_running()
            monkeypatch.setattr("opscore.embedded.services.PATIENCE_S", 0.0)
            with pytest.raises(ChildError, match="in use"):
                services.keep_running()


def test_named_services_are_used_and_not_started(var_dir: Path) -> None:
    database, broker = "postgresql://db.example/x", "redis://broker.example/0"
    config = Config(var_dir=var_dir, database_url=database, broker_url=broker)
    with Services(config) as services:
        assert (services.postgres, services.valkey) == (None, None)
        assert services.environment()["OPSCORE_DATABASE_URL"] == database


def test_a_lost_password_file_is_explained(config: Config) -> None:
    with Services(config):
        pass
    (config.var_dir / "kept.json").unlink()
    with pytest.raises(ChildError, match="has another password than"):
        Services(config).__enter__()


def test_a_server_that_cannot_start_is_reported_with_its_last_words(config: Config) -> None:
    with Services(config):
        pass
    (config.var_dir / "postgres" / "data" / "PG_VERSION").unlink()
    with pytest.raises(ChildError, match=r"(?s)PostgreSQL ended with exit code.*PG_VERSION"):
        Services(config).__enter__()


def _runs(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _is_down(server: Postgres | Valkey) -> bool:
    return not server.runs()


def _write_mark(services: Services, word: str) -> None:
    _write_mark_to({"database_url": services.database_url, "broker_url": services.broker_url}, word)


def _write_mark_to(urls: dict[str, str], word: str) -> None:
    with psycopg.connect(urls["database_url"]) as connection:
        connection.execute("CREATE TABLE mark AS SELECT %s AS word", [word])
    with redis.Redis.from_url(urls["broker_url"]) as client:
        client.set("mark", word)


def _read_marks(services: Services) -> tuple[object, object]:
    with psycopg.connect(services.database_url) as connection:
        row = connection.execute("SELECT word FROM mark").fetchone()
    with redis.Redis.from_url(services.broker_url) as client:
        return row and row[0], client.get("mark")
