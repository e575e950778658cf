"""Where PostgreSQL's data and programs go, and who may use them."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from opscore.embedded import binaries
from opscore.embedded.folders import give, postgres_home, reachable_tree, server_account
from opscore.errors import UnavailableError

only_root = pytest.mark.skipif(
    os.geteuid() != 0, reason="only root runs PostgreSQL as another account"
)


@only_root
def test_data_of_a_folder_that_only_root_can_enter_live_elsewhere(var_dir: Path) -> None:
    closed = _closed(var_dir)
    account = server_account(closed)
    home = postgres_home(closed, account)
    try:
        assert (closed / "postgres").resolve() == home
        assert home.stat().st_uid == account["user"]
        assert stat.S_IMODE(home.stat().st_mode) == 0o700
        assert postgres_home(closed, account) == home
    finally:
        home.rmdir()


@only_root
def test_programs_that_only_root_can_reach_are_copied_once_for_each_release(var_dir: Path) -> None:
    tree, home = _closed(var_dir) / "pginstall", var_dir / "home"
    (tree / "bin").mkdir(parents=True)
    home.mkdir()
    (tree / "bin" / "postgres").write_text("one release")
    account = server_account(var_dir)
    first = reachable_tree(tree, home, account)
    assert (first / "bin" / "postgres").read_text() == "one release"
    assert reachable_tree(tree, home, account) == first
    (tree / "bin" / "postgres").write_text("the next release")
    second = reachable_tree(tree, home, account)
    assert (second / "bin" / "postgres").read_text() == "the next release"
    assert [path.name for path in home.iterdir()] == [second.name]


@only_root
def test_root_runs_the_server_as_the_owner_of_the_data(var_dir: Path) -> None:
    data = var_dir / "postgres"
    data.mkdir()
    os.chown(data, 12345, 12345)
    assert server_account(var_dir)["user"] == 12345


@only_root
def test_a_folder_of_a_stranger_is_refused(var_dir: Path) -> None:
    home = var_dir / "home"
    home.mkdir()
    os.chown(home, 12345, 12345)
    with pytest.raises(UnavailableError, match="belongs to user 12345"):
        give(home, {})


def test_a_machine_without_any_server_is_told_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(binaries, "_POSTGRES_WHEELS", ("no_such_wheel",))
    with pytest.raises(UnavailableError, match="OPSCORE_DATABASE_URL"):
        binaries.postgres_tree()


def test_a_server_on_the_path_stands_in_for_the_wheel(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("initdb", "postgres"):
        program = tmp_path / "bin" / name
        program.parent.mkdir(exist_ok=True)
        program.touch(mode=0o755)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setattr(binaries, "_POSTGRES_WHEELS", ())
    assert binaries.postgres_tree() == tmp_path


def _closed(var_dir: Path) -> Path:
    folder = var_dir / "closed"
    folder.mkdir(mode=0o700)
    return folder
