"""Lints a repository's Python files with ruff: a `command` agent, started once for each task."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from examples.repo_review.bounded import fit
from examples.repo_review.command_line import say, serve
from examples.repo_review.repository import Repository

Json = dict[str, Any]

MAX_FILES_BYTES = 60_000
#: Rules about likely mistakes; matters of taste belong to the repository's own configuration,
#: which is not read: it may name plugins, and the review is to be the same for everybody.
RULES = "F,E7,E9,B,PLE,S102,S307,S602,S605"
#: What is wrong at run time, not only ugly, worst first: syntax; undefined names; broken
#: formats and comparisons; shared mutable defaults and late-bound loop variables; eval and
#: shell strings; the rest.
_SERIOUS = [
    re.compile(pattern)
    for pattern in ("invalid-syntax|E9", "F82", "F5|F63|F7", "B006$|B023$", "S", "PLE")
]


def lint(root: str) -> Json:
    """Return the findings for each rule and file; without ruff, `available` is false."""
    repository = Repository(Path(root))
    names = [name for name in repository.code() if name.endswith(".py")]
    ruff = _ruff()
    if ruff is None:
        say("ruff is not installed on this host: nothing was linted")
        return {"available": False, "files_checked": 0, **summary([])}
    say(f"linting {len(names)} Python files")
    known = set(names)
    findings = [found for found in _findings(ruff, root) if found["path"] in known] if names else []
    say(f"{len(findings)} findings")
    return {"available": True, "files_checked": len(names), **summary(findings)}


def _ruff() -> str | None:
    """Return the ruff that is installed beside this interpreter, else the one on the path."""
    return shutil.which("ruff", path=str(Path(sys.executable).parent)) or shutil.which("ruff")


def _findings(ruff: str, root: str) -> Iterator[Json]:
    """Run ruff and yield its findings one by one: a large repository has a million."""
    command = [ruff, "check", "--isolated", "--no-cache", "--quiet", "--exit-zero"]
    command += ["--output-format", "json-lines", "--target-version", "py314", "--select", RULES]
    # A package's `__init__` imports names to pass them on.
    command += ["--per-file-ignores", "__init__.py:F401", "."]
    with subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, stderr=sys.stderr) as process:
        for line in process.stdout or ():
            yield _finding(json.loads(line), root)
    if process.returncode:
        sys.exit(f"ruff failed with exit code {process.returncode}; its message is in the log.")


def _finding(raw: Json, root: str) -> Json:
    location = raw.get("location") or {}
    return {
        "path": os.path.relpath(raw["filename"], root),
        "line": location.get("row", 0),
        "rule": raw.get("code") or "invalid-syntax",
        "name": raw.get("name") or "",
        "message": raw["message"][:200],
        "fixable": (raw.get("fix") or {}).get("applicability") == "safe",
    }


def summary(findings: Iterable[Json]) -> Json:
    """Count the findings by rule and by file, and name the serious ones; sorted, bounded."""
    rows = sorted(findings, key=lambda found: (found["path"], found["line"], found["rule"]))
    rules = Counter(found["rule"] for found in rows)
    names = {found["rule"]: found["name"] for found in rows}
    fixable = Counter(found["rule"] for found in rows if found["fixable"])
    files = Counter(found["path"] for found in rows)
    serious = [found for found in rows if _severity(found["rule"]) < len(_SERIOUS)]
    serious.sort(key=lambda found: _severity(found["rule"]))
    return {
        "findings": len(rows),
        "fixable": fixable.total(),
        "rules": [
            {"rule": rule, "name": names[rule], "count": count, "fixable": fixable[rule]}
            for rule, count in _ordered(rules)[:30]
        ],
        "files_total": len(files),
        "files": fit(
            [{"path": path, "count": count} for path, count in _ordered(files)], MAX_FILES_BYTES
        ),
        "serious_total": len(serious),
        "serious": _first_of_each(serious)[:30],
    }


def _severity(rule: str) -> int:
    """Return the place of a rule among the serious kinds, 0 for the worst."""
    kinds = (place for place, kind in enumerate(_SERIOUS) if kind.match(rule))
    return next(kinds, len(_SERIOUS))


def _ordered(counts: Counter[str]) -> list[tuple[str, int]]:
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))


def _first_of_each(rows: list[Json]) -> list[Json]:
    """Keep the first finding of each rule in each file: one broken line brings ten messages."""
    kept: dict[tuple[str, str], Json] = {}
    for row in rows:
        kept.setdefault((row["path"], row["rule"]), row)
    return list(kept.values())


if __name__ == "__main__":
    serve(lint)
