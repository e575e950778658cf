"""Settings that are wrong, or missing, are said in a sentence."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from threading import Barrier

import pytest

from opscore.config import ROOT, listed
from opscore.kept import kept_secret

_NOBODY = 65534


def manage(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run manage.py with these OPSCORE_ variables and no others."""
    clean = {name: word for name, word in os.environ.items() if not name.startswith("OPSCORE_")}
    named = {f"OPSCORE_{name}": word for name, word in environment.items()}
    return subprocess.run(
        [sys.executable, "manage.py", *arguments],
        cwd=ROOT,
        env={**clean, **named},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("DATABASE_URL", "mysql://here/x", "a URL postgresql://… is expected"),
        ("DATABASE_URL", "postgresql://here:99999/x", "Port out of range"),
        ("DATABASE_URL", "postgresql://here:port/x", "Port could not be cast"),
        ("LOG_LEVEL", "loud", "Input should be 'DEBUG'"),
        ("PORT", "99999", "Input should be less than or equal to 65535"),
    ],
)
def test_wrong_value_is_named(var_dir: Path, name: str, value: str, said: str) -> None:
    done = manage("check", VAR_DIR=str(var_dir), **{name: value})
    assert done.returncode == 1
    assert f"OPSCORE_{name}: {said}" in done.stderr
    assert "Traceback" not in done.stderr


def test_wrong_option_of_up_is_named(var_dir: Path) -> None:
    done = manage("up", "--port", "99999", VAR_DIR=str(var_dir))
    assert (done.returncode, done.stdout) == (1, "")
    assert "OPSCORE_PORT: Input should be less than or equal to 65535" in done.stderr
    assert "Traceback" not in done.stderr


def test_level_may_be_lower_case(var_dir: Path) -> None:
    assert manage("check", VAR_DIR=str(var_dir), LOG_LEVEL="warning").returncode == 0


@pytest.mark.parametrize(
    "command", [("apikey", "list"), ("migrate",), ("bootstrap",), ("supervise",)]
)
def test_commands_without_a_platform_look_for_no_other_database(
    var_dir: Path, command: tuple[str, ...]
) -> None:
    done = manage(*command, VAR_DIR=str(var_dir))
    assert done.returncode == 1
    said = done.stderr.strip().removeprefix("CommandError: ")
    assert said == "No platform runs here: `make up`, or set OPSCORE_DATABASE_URL."


def test_words_may_stand_apart() -> None:
    assert listed("a, b,,c ") == ["a", "b", "c"]
    assert listed("") == []


def test_secret_is_one_for_all_who_ask_at_once(tmp_path: Path) -> None:
    askers = 8
    with ThreadPoolExecutor(askers) as pool:
        for number in range(50):
            path, start = tmp_path / str(number) / "secret_key", Barrier(askers)

            def ask(path: Path = path, start: Barrier = start) -> str:
                start.wait()
                return kept_secret(path, lambda: secrets.token_urlsafe(48))

            [secret] = {asked.result() for asked in [pool.submit(ask) for _ in range(askers)]}
            assert len(secret) == 64
            assert [file.name for file in path.parent.iterdir()] == [path.name]
            assert path.stat().st_mode & 0o777 == 0o600


def test_secret_of_another_account_is_refused_in_a_sentence(var_dir: Path) -> None:
    path = var_dir / "secret_key"
    path.write_text("theirs")
    path.chmod(0)
    with (
        another_account(),
        pytest.raises(SystemExit, match=f"{path} cannot be used by this account"),
    ):
        kept_secret(path, lambda: secrets.token_urlsafe(48))


@contextmanager
def another_account() -> Iterator[None]:
    """Be nobody, where the tests run as root: root may read everything."""
    is_root = os.geteuid() == 0
    if is_root:
        os.seteuid(_NOBODY)
    try:
        yield
    finally:
        if is_root:
            os.seteuid(0)
