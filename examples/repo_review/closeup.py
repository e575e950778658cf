"""One hot file from near: what in it is hard, how it changed, who can be asked about it."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import Any

from examples.repo_review.history import Commit, changes_of, day
from examples.repo_review.indentation import code_lines
from examples.repo_review.languages import language_of
from examples.repo_review.python_code import FunctionFacts, measure
from examples.repo_review.repository import Repository

Json = dict[str, Any]

_UNDONE = re.compile(r"\b(?:TODO|FIXME|XXX|HACK)\b")


def look(*, root: str, head: str, path: str, commits: int) -> Json:
    """Return the details of one file; `commits` is how many of its newest changes are read."""
    repository = Repository(Path(root))
    content = repository.read(path)
    text = content.decode("utf-8", "replace") if isinstance(content, bytes) else ""
    functions = functions_of(path, text.encode())
    return {
        "path": path,
        "lines": len(code_lines(text)),
        "function_count": len(functions),
        "functions": [_function(found) for found in functions[:3]],
        "undone": _undone(text),
        **_changes(changes_of(repository, head, path, commits)),
    }


def functions_of(path: str, content: bytes) -> list[FunctionFacts]:
    """Return the functions of a Python file, the most complex first; none of any other."""
    if language_of(path) != "Python":
        return []
    try:
        found = measure(content).functions
    except SyntaxError:
        return []
    return sorted(found, key=lambda row: (-row.complexity, -row.lines, row.line))


def _function(found: FunctionFacts) -> Json:
    return {
        "name": found.name,
        "line": found.line,
        "lines": found.lines,
        "complexity": found.complexity,
        "nesting": found.nesting,
    }


def _undone(text: str) -> Json:
    lines = [number for number, line in enumerate(text.splitlines(), 1) if _UNDONE.search(line)]
    return {"count": len(lines), "lines": lines[:5]}


def _changes(commits: list[Commit]) -> Json:
    largest = max(commits, key=lambda commit: (_size(commit), commit.time_s), default=None)
    return {
        "changes": len(commits),
        "added": sum(change.added for commit in commits for change in commit.changes),
        "removed": sum(change.removed for commit in commits for change in commit.changes),
        "oldest": day(commits[-1].time_s) if commits else "",
        "newest": day(commits[0].time_s) if commits else "",
        "largest": _brief(largest) if largest and _size(largest) else None,
        "authors": _authors(commits),
    }


def _size(commit: Commit) -> int:
    return sum(change.added + change.removed for change in commit.changes)


def _brief(commit: Commit) -> Json:
    return {
        "commit": commit.id[:10],
        "day": day(commit.time_s),
        "author": commit.author,
        "added": sum(change.added for change in commit.changes),
        "removed": sum(change.removed for change in commit.changes),
    }


def _authors(commits: list[Commit]) -> list[Json]:
    counts = Counter(commit.author for commit in commits)
    newest = {commit.author: day(commit.time_s) for commit in reversed(commits)}
    ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return [{"name": name, "commits": count, "newest": newest[name]} for name, count in ranked[:5]]
