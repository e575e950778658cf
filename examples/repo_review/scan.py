"""First step: is this a repository, which commit is it at, and what is in it?"""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime
from typing import Any

from examples.repo_review.languages import is_source, language_of
from examples.repo_review.repository import Repository

Json = dict[str, Any]


def scan(path: str) -> Json:
    """Describe the repository at `path`; raises RepositoryError when there is none."""
    repository = Repository.open(path)
    files = repository.files()
    source = [name for name in files if is_source(name)]
    return {
        "root": str(repository.root),
        "name": repository.root.name or "repository",
        "files": len(files),
        "source_files": len(source),
        "languages": dict(Counter(str(language_of(name)) for name in source).most_common(12)),
        **_commit(repository),
    }


def _commit(repository: Repository) -> Json:
    """Return what is checked out; a repository without commits has an empty `head`."""
    head = repository.head()
    shallow = repository.git("rev-parse", "--is-shallow-repository").strip() == b"true"
    if not head:
        return {"head": "", "subject": "", "date": "", "branch": "", "shallow": shallow}
    shown = repository.git("log", "-1", "--format=%ct%x00%s", head).decode("utf-8", "replace")
    seconds, subject = shown.strip().split("\0", 1)
    branch = repository.git("rev-parse", "--abbrev-ref", "HEAD").decode("utf-8", "replace").strip()
    return {
        "head": head,
        "subject": subject[:200],
        "date": datetime.fromtimestamp(int(seconds), UTC).date().isoformat(),
        "branch": "" if branch == "HEAD" else branch,
        "shallow": shallow,
    }
