"""Churn: how often each file changed in the newest commits, by whom and when."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from examples.repo_review.bounded import fit, paced
from examples.repo_review.languages import is_source
from examples.repo_review.repository import Repository, shown

Json = dict[str, Any]

MAX_BYTES = 100_000
_LOG = (
    "log",
    "-z",
    "--no-merges",
    "--no-ext-diff",
    "--no-textconv",
    "--format=%x1e%H%x1f%ct%x1f%aN",
)


@dataclass(frozen=True)
class Change:
    """What one commit did to one file."""

    path: str
    added: int = 0
    removed: int = 0
    old_path: str = ""
    """The name before, when the commit renamed the file."""


@dataclass
class Commit:
    """One commit and the files that it touched."""

    id: str
    time_s: int
    author: str
    changes: list[Change] = field(default_factory=list)


@dataclass
class Churn:
    """All changes of one file, under the name that it has now."""

    commits: int = 0
    added: int = 0
    removed: int = 0
    newest_s: int = 0
    authors: Counter[str] = field(default_factory=Counter)

    def add(self, commit: Commit, change: Change) -> None:
        """Count one more commit."""
        self.commits += 1
        self.added += change.added
        self.removed += change.removed
        self.newest_s = max(self.newest_s, commit.time_s)
        self.authors[commit.author] += 1


def read_commits(repository: Repository, head: str, limit: int) -> list[Commit]:
    """Return the newest `limit` commits up to `head`, newest first; merges are left out.

    A clone without file contents (`--filter=blob:none`) cannot count lines without
    fetching: there the changed names alone are read, and renames are not followed.
    """
    detail = ("--name-only", "--no-renames") if is_partial(repository) else ("--numstat", "-M")
    raw = repository.git(*_LOG, *detail, f"--max-count={limit}", head, "--")
    return list(_parse(raw.split(b"\0")))


def changes_of(repository: Repository, head: str, path: str, limit: int) -> list[Commit]:
    """Return the newest `limit` commits that touched one file, newest first, through its renames.

    The limit is what `mine` counted: git would go on to the file that it was copied from. Where
    a shallow clone ends, nothing is known about what a commit changed: it is left out.
    """
    if not head or not limit:
        return []
    partial = is_partial(repository)
    detail = ("--name-only", "--no-renames") if partial else ("--numstat", "--follow")
    wanted = (f"--max-count={limit}", head, "--", repository.on_disk(path))
    raw = repository.git("--literal-pathspecs", *_LOG, *detail, *wanted)
    ends = boundary(repository)
    return [commit for commit in _parse(raw.split(b"\0")) if commit.id not in ends]


def touched_by(repository: Repository, commit_ids: list[str]) -> Iterator[list[str]]:
    """Yield the names of the files that each of these commits touched."""
    if commit_ids:
        detail = ("--name-only", "--no-renames", "--no-walk=unsorted")
        raw = repository.git(*_LOG, *detail, *commit_ids, "--")
        for commit in _parse(raw.split(b"\0")):
            yield [change.path for change in commit.changes]


def is_partial(repository: Repository) -> bool:
    """Tell whether file contents are missing here and would be fetched when asked for."""
    config = repository.git("config", "--list", "--name-only").decode("utf-8", "replace")
    return any(line.startswith("remote.") and line.endswith(".promisor") for line in config.split())


def _parse(tokens: list[bytes]) -> Iterator[Commit]:
    """Read git's `-z` output: a header, then `added TAB removed TAB name`, or a bare name.

    The name is empty for a rename; the old and the new one then follow as tokens.
    """
    commit: Commit | None = None
    stream = iter(tokens)
    for token in stream:
        if token.startswith(b"\x1e"):
            if commit:
                yield commit
            commit_id, seconds, author = token[1:].decode("utf-8", "replace").split("\x1f", 2)
            commit = Commit(commit_id, int(seconds), author)
        elif token and commit:
            commit.changes.append(_change(token.removeprefix(b"\n"), stream))
    if commit:
        yield commit


def _change(token: bytes, stream: Iterator[bytes]) -> Change:
    parts = token.split(b"\t", 2)
    if len(parts) < 3:
        return Change(shown(token))
    added, removed = (int(part) if part.isdigit() else 0 for part in parts[:2])
    if parts[2]:
        return Change(shown(parts[2]), added, removed)
    old, new = next(stream), next(stream)
    return Change(shown(new), added, removed, shown(old))


def boundary(repository: Repository) -> frozenset[str]:
    """Return the commits where a shallow clone ends: their diffs would show every file as new."""
    path = repository.git("rev-parse", "--git-path", "shallow").decode("utf-8", "replace").strip()
    file = repository.root / Path(path)
    return frozenset(file.read_text().split()) if file.is_file() else frozenset()


def tally(commits: list[Commit], slow_motion_s: float = 0) -> dict[str, Churn]:
    """Add up the changes for each file, following renames back in time."""
    now_called: dict[str, str] = {}
    files: dict[str, Churn] = {}
    for commit in paced(commits, slow_motion_s):
        for change in commit.changes:
            path = now_called.get(change.path, change.path)
            files.setdefault(path, Churn()).add(commit, change)
            if change.old_path:
                now_called[change.old_path] = path
    return files


def mine(root: str, head: str, commits: int = 500, slow_motion_s: float = 0) -> Json:
    """Return the churn of the source files that exist now, most often changed first."""
    repository = Repository(Path(root))
    read = read_commits(repository, head, commits) if head else []
    ends = boundary(repository)
    counted = [commit for commit in read if commit.id not in ends]
    present = {name for name in repository.files() if is_source(name)}
    churn = {
        path: found for path, found in tally(counted, slow_motion_s).items() if path in present
    }
    rows = sorted(churn.items(), key=_most_changed)
    return {
        "commits": len(counted),
        "commits_unknown": len(read) - len(counted),
        "newest": day(read[0].time_s) if read else "",
        "oldest": day(read[-1].time_s) if read else "",
        "authors": _authors(counted),
        "author_count": len({commit.author for commit in counted}),
        "files_changed": len(churn),
        "files": fit([_row(path, found) for path, found in rows], MAX_BYTES),
    }


def _most_changed(item: tuple[str, Churn]) -> tuple[int, int, str]:
    path, found = item
    return (-found.commits, -(found.added + found.removed), path)


def _row(path: str, found: Churn) -> Json:
    return {
        "path": path,
        "commits": found.commits,
        "lines": found.added + found.removed,
        "authors": len(found.authors),
        "main": _ranked(found.authors)[0][0],
        "newest": day(found.newest_s),
    }


def _ranked(authors: Counter[str]) -> list[tuple[str, int]]:
    return sorted(authors.items(), key=lambda item: (-item[1], item[0]))


def _authors(commits: list[Commit]) -> list[Json]:
    """Return the busiest authors with the day of their newest commit."""
    newest: dict[str, int] = {}
    for commit in commits:
        newest[commit.author] = max(newest.get(commit.author, 0), commit.time_s)
    counts = _ranked(Counter(commit.author for commit in commits))
    return [
        {"name": name, "commits": count, "newest": day(newest[name])} for name, count in counts[:50]
    ]


def day(seconds: int) -> str:
    """Return the day of a commit in UTC, as 2024-01-31."""
    return datetime.fromtimestamp(seconds, UTC).date().isoformat()
