"""Hot spots: files that change often and are complex, ranked against the rest of their repository."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Mapping
from typing import Any

Json = dict[str, Any]

COMPLEX = 10
LONG_FUNCTION = 60
MANY_ARGUMENTS = 6
DEEP = 4


def ranks(values: Mapping[str, float]) -> dict[str, float]:
    """Return each name's rank above 0 and up to 1 (highest); equal values share the middle one.

    Ranks are relative, so they work on ten commits as on ten thousand. Where all values
    are equal they tell nothing apart, and every rank is 1.
    """
    ordered = sorted(values.values())
    if not ordered or ordered[0] == ordered[-1]:
        return dict.fromkeys(values, 1.0)
    return {
        name: (bisect_left(ordered, value) + bisect_right(ordered, value) + 1) / 2 / len(ordered)
        for name, value in values.items()
    }


def rank_files(
    *,
    history: Json,
    metrics: Json,
    lint: Json,
    tests: Json,
    owners: Json,
    top: int = 15,
    closeups: int = 5,
) -> Json:
    """Score every measured file: rank of its churn times rank of its complexity.

    `hottest` are the first `closeups` of them, to be looked at one by one.
    """
    # A file without a decision is not hard to change, however often that happens.
    measured = [row for row in metrics["files"] if row["complexity"]]
    changed = {row["path"]: row for row in history["files"]}
    churn = {row["path"]: changed.get(row["path"], {}).get("commits", 0) for row in measured}
    churn_rank = ranks(churn)
    complexity_rank = ranks({row["path"]: row["complexity"] for row in measured})
    facts = _Facts(changed, lint, tests, owners)
    # The list of churn is cut in very large repositories: then 0 means few, not none.
    unlisted = "rarely changed" if len(changed) < history["files_changed"] else "unchanged"
    rows = [
        {
            "path": row["path"],
            "score": round(churn_rank[row["path"]] * complexity_rank[row["path"]], 3),
            "churn_rank": round(churn_rank[row["path"]], 3),
            "complexity_rank": round(complexity_rank[row["path"]], 3),
            "complexity": row["complexity"],
            "lines": row["lines"],
            "longest": row.get("longest", 0),
            **facts.about(row["path"]),
            "tested": facts.tested(row),
        }
        for row in measured
    ]
    rows.sort(key=_hottest)
    return {
        "ranked": len(rows),
        "unranked": metrics["files_total"] - len(rows),
        "churn_tells": len(set(churn.values())) > 1,
        "worst_score": rows[0]["score"] if rows else 0.0,
        "hottest": [{"path": row["path"], "commits": row["commits"]} for row in rows[:closeups]],
        "hotspots": [
            {**row, "why": why(row, unlisted if history["commits"] else "")} for row in rows[:top]
        ],
    }


def _hottest(row: Json) -> tuple[Any, ...]:
    """Equal scores: first the files without tests, then those with more of everything."""
    return (
        -row["score"],
        row["tested"] is not False,
        -row["commits"],
        -row["complexity"],
        row["path"],
    )


class _Facts:
    """What the other agents know about a file, by its path."""

    def __init__(self, changed: dict[str, Json], lint: Json, tests: Json, owners: Json) -> None:
        self._changed = changed
        self._lint = {row["path"]: row["count"] for row in lint["files"]}
        self._untested = {row["path"] for row in tests["untested"]}
        cut = len(tests["untested"]) < tests["untested_total"]
        self._listed_from = tests["untested"][-1]["lines"] if cut and tests["untested"] else 0
        self._silent = {author["name"] for author in owners["authors"] if author["silent"]}
        self._shared = owners["author_count"] > 1

    def about(self, path: str) -> Json:
        row = self._changed.get(path)
        main = row["main"] if row else ""
        return {
            "commits": row["commits"] if row else 0,
            "changed_lines": row["lines"] if row else 0,
            "authors": row["authors"] if row else 0,
            "main_author": main,
            "newest": row["newest"] if row else "",
            # In a repository of one author this is no news about a file.
            "island": bool(row and row["authors"] == 1 and row["commits"] >= 3 and self._shared),
            "orphan": main in self._silent,
            "lint": self._lint.get(path, 0),
        }

    def tested(self, row: Json) -> bool | None:
        """None: the list of untested files was cut, and this file is smaller than all in it."""
        if row["path"] in self._untested:
            return False
        return True if row["lines"] >= self._listed_from else None


def why(row: Json, unlisted: str = "unchanged") -> str:
    """Say in words why a file is where it is; `unlisted` stands for files without churn."""
    reasons = [_changes(row)] if row["commits"] else [unlisted] if unlisted else []
    reasons.append(f"complexity {row['complexity']}")
    if row["longest"] > LONG_FUNCTION:
        reasons.append(f"a function of {row['longest']} lines")
    if row["tested"] is False:
        reasons.append("no tests found")
    if row["lint"]:
        reasons.append(_count(row["lint"], "lint finding"))
    if row["island"]:
        reasons.append(f"known to {row['main_author']} alone")
    if row["orphan"]:
        reasons.append(f"its main author {row['main_author']} has been silent for half a year")
    return ", ".join(reasons)


def rank_functions(*, metrics: Json, top: int = 15) -> Json:
    """Rank the hard functions by complexity times length, with what makes each hard to change.

    A repository of easy functions gets an empty list, and its most complex one for comparison.
    """
    rows: list[Json] = metrics["functions"]
    names = {str(place): row for place, row in enumerate(rows)}
    by_complexity = ranks({place: row["complexity"] for place, row in names.items()})
    by_length = ranks({place: row["lines"] for place, row in names.items()})
    scored = [
        {
            **row,
            "score": round(by_complexity[place] * by_length[place], 3),
            "why": _function_why(row),
        }
        for place, row in names.items()
        if row["complexity"] > COMPLEX or row["lines"] > LONG_FUNCTION
    ]
    scored.sort(key=lambda row: (-row["score"], -row["complexity"], row["path"], row["line"]))
    return {"functions": scored[:top], "most_complex": rows[0] if rows else None}


def _function_why(row: Json) -> str:
    reasons = [f"{row['complexity'] - 1} decisions in {row['lines']} lines"]
    if row["nesting"] >= DEEP:
        reasons.append(f"nested {row['nesting']} deep")
    if row["arguments"] > MANY_ARGUMENTS:
        reasons.append(f"{row['arguments']} arguments")
    if not row["documented"]:
        reasons.append("no docstring")
    return ", ".join(reasons)


def _count(number: int, word: str) -> str:
    return f"{number} {word}" if number == 1 else f"{number} {word}s"


def _changes(row: Json) -> str:
    often = {1: "once", 2: "twice"}.get(row["commits"], f"{row['commits']} times")
    return f"changed {often} by {_count(row['authors'], 'author')}"
