"""Where the platform is: the environment, else the file that `make up` writes."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from opscore_sdk.errors import OpsCoreError

ENV_FILE = Path("var") / "opscore.env"


class PlaceError(OpsCoreError):
    """Nobody said where the platform is."""


@dataclass(frozen=True)
class Place:
    """An address and a key."""

    url: str
    api_key: str


def find_place(environ: Mapping[str, str] | None = None, folder: Path | None = None) -> Place:
    """Return OPSCORE_API_URL and OPSCORE_API_KEY, from the environment or var/opscore.env.

    Raises PlaceError saying what to do.
    """
    environ = os.environ if environ is None else environ
    written = _read((folder or Path()) / ENV_FILE)
    url = environ.get("OPSCORE_API_URL") or written.get("OPSCORE_API_URL", "")
    key = environ.get("OPSCORE_API_KEY") or written.get("OPSCORE_API_KEY", "")
    if not url or not key:
        missing = "OPSCORE_API_KEY" if url else "OPSCORE_API_URL"
        raise PlaceError(
            f"{missing} is not set and {ENV_FILE} does not say it: "
            "start the platform with `make up`, or set it."
        )
    return Place(url, key)


def _read(path: Path) -> dict[str, str]:
    try:
        lines = path.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return {}
    pairs = (line.removeprefix("export ").partition("=") for line in lines if "=" in line)
    return {name.strip(): value.strip().strip("'\"") for name, _, value in pairs}
