"""Secrets that an installation makes for itself on first use, each in a file of its own."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from opscore.config import not_ours


def kept_secret(path: Path, made: Callable[[], str]) -> str:
    """Return the secret in `path`, made on first use and readable by its owner only.

    Ends the process with a sentence where the file belongs to another account.
    """
    try:
        if not path.exists():
            _keep(path, made())
        return path.read_text()
    except PermissionError as error:
        sys.exit(not_ours(error))


def _keep(path: Path, secret: str) -> None:
    """Write it whole before it has its name; of many who do it at once, the first one wins."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, unfinished = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w") as file:
            file.write(secret)
        with contextlib.suppress(FileExistsError):
            os.link(unfinished, path)
    finally:
        os.unlink(unfinished)
