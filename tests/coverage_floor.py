"""Fails when the tests miss too much: 90 % over all, and of the branches of tasks and agents."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

ALL_FLOOR = 90.0
BRANCH_FLOORS = {"tasks": 95.0, "agents": 95.0}


def branches(files: dict[str, Any], folder: str) -> float:
    """Return the percentage of branches that were taken in a top-level folder."""
    parts = [facts["summary"] for name, facts in files.items() if name.startswith(f"{folder}/")]
    there = sum(part["num_branches"] for part in parts)
    taken = sum(part["covered_branches"] for part in parts)
    return 100.0 * taken / there if there else 100.0


def main(path: Path) -> int:
    """Print the figures; return 1 when one is too low."""
    report = json.loads(path.read_text())
    figures = {"all, lines and branches": (report["totals"]["percent_covered"], ALL_FLOOR)}
    for folder, floor in BRANCH_FLOORS.items():
        figures[f"{folder}, branches"] = (branches(report["files"], folder), floor)
    for name, (found, floor) in figures.items():
        verdict = "" if found >= floor else "  TOO LOW"
        print(f"coverage of {name}: {found:.1f} % (at least {floor:g} %){verdict}")
    return int(any(found < floor for found, floor in figures.values()))


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
