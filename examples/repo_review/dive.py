"""The hottest file once more, deeply: which of its functions change, and what changes with it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from examples.repo_review.closeup import functions_of
from examples.repo_review.history import Commit, changes_of, is_partial, touched_by
from examples.repo_review.languages import language_of
from examples.repo_review.python_code import FunctionFacts
from examples.repo_review.repository import Repository, RepositoryError

Json = dict[str, Any]

#: A commit that touches more files says nothing about which of them belong together.
SWEEPING = 30
#: Together less often than this is chance.
OFTEN = 3
_FUNCTIONS = 5


def dive(*, root: str, head: str, path: str, commits: int) -> Json:
    """Return how often each hard function of the file changed, and the files that change with it."""
    repository = Repository(Path(root))
    changes = changes_of(repository, head, path, commits)
    return {
        "path": path,
        "changes": len(changes),
        "functions": _function_churn(repository, head, path, changes),
        "partners": _partners(repository, path, changes),
    }


def _function_churn(
    repository: Repository, head: str, path: str, changes: list[Commit]
) -> list[Json]:
    if not changes or is_partial(repository):
        return []  # the contents of old versions would have to be fetched
    try:
        content = repository.git("cat-file", "blob", f"{head}:{repository.on_disk(path)}")
    except RepositoryError:
        return []
    hard = functions_of(path, content)[:_FUNCTIONS]
    known = {commit.id for commit in changes}
    rows = [
        {
            "name": found.name,
            "line": found.line,
            "complexity": found.complexity,
            "changes": len(known & _commits_in(repository, head, path, changes[-1], found)),
        }
        for found in hard
    ]
    return sorted(rows, key=lambda row: (-row["changes"], -row["complexity"], row["line"]))


def _commits_in(
    repository: Repository, head: str, path: str, oldest: Commit, function: FunctionFacts
) -> set[str]:
    """Return the commits that changed the lines of one function, not far beyond `oldest`."""
    last = function.line + function.lines - 1
    listed = repository.git(
        *("log", "-s", "--no-merges", "--no-ext-diff", "--no-textconv", "--format=%H"),
        *(f"--max-age={oldest.time_s}", f"-L{function.line},{last}:{repository.on_disk(path)}"),
        head,
    )
    return set(listed.decode().split())


def _partners(repository: Repository, path: str, changes: list[Commit]) -> list[Json]:
    together: Counter[str] = Counter()
    present = set(repository.files())
    for names in touched_by(repository, [commit.id for commit in changes]):
        if len(names) <= SWEEPING:
            together.update({name for name in names if name in present and language_of(name)})
    del together[path]
    ranked = sorted(together.items(), key=lambda item: (-item[1], item[0]))
    return [{"path": name, "together": count} for name, count in ranked if count >= OFTEN][:5]
