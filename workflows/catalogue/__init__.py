"""Templates that come with the platform: one file each, `flaky.yaml` is `opscore/flaky`."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from opscore.documents import read

PREFIX = "opscore/"


@cache
def shipped() -> Mapping[str, Mapping[str, Any]]:
    """Return name -> template, without the descriptions."""
    files = sorted(Path(__file__).parent.glob("*.yaml"))
    return {f"{PREFIX}{file.stem}": _template(file) for file in files}


def descriptions() -> Mapping[str, str]:
    """Return name -> what the template is for."""
    files = sorted(Path(__file__).parent.glob("*.yaml"))
    return {f"{PREFIX}{file.stem}": read(file.read_bytes()).data["description"] for file in files}


def _template(file: Path) -> dict[str, Any]:
    data = read(file.read_bytes()).data
    return {key: value for key, value in data.items() if key != "description"}
