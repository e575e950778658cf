"""Who knows the code: main authors, knowledge islands, and the bus factor."""

from __future__ import annotations

from collections import Counter
from datetime import date
from typing import Any

Json = dict[str, Any]

SILENT_DAYS = 180
ISLAND_COMMITS = 3


def ownership(history: Json, top: int = 15) -> Json:
    """Judge from the churn of files who could leave without taking knowledge along."""
    files: list[Json] = history["files"]
    owners = Counter(row["main"] for row in files)
    silent = _silent(history)
    islands = [row for row in files if row["authors"] == 1 and row["commits"] >= ISLAND_COMMITS]
    orphans = [row for row in files if row["main"] in silent]
    return {
        "bus_factor": bus_factor(owners),
        "files": len(files),
        "authors": [
            {**author, "main_of": owners[author["name"]], "silent": author["name"] in silent}
            for author in history["authors"][:top]
        ],
        "author_count": history["author_count"],
        "island_count": len(islands),
        "islands": [_place(row) for row in islands[:top]],
        "orphan_count": len(orphans),
        "orphans": [_place(row) for row in orphans[:top]],
    }


def bus_factor(owners: Counter[str]) -> int:
    """Return how many authors can leave before half of the changed files lose their main one."""
    left = sum(owners.values()) / 2
    for number, (_, owned) in enumerate(owners.most_common(), 1):
        left -= owned
        if left <= 0:
            return number
    return 0


def _silent(history: Json) -> frozenset[str]:
    """Return the authors without a commit in the newest half year of the history."""
    if not history["newest"]:
        return frozenset()
    newest = date.fromisoformat(history["newest"])
    return frozenset(
        author["name"]
        for author in history["authors"]
        if (newest - date.fromisoformat(author["newest"])).days > SILENT_DAYS
    )


def _place(row: Json) -> Json:
    return {"path": row["path"], "commits": row["commits"], "author": row["main"]}
