"""Secrets in a task's inputs: which ones a template names, and their values for an executor."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from opscore import vault
from tasks.cel import CompileError, compiled
from tasks.cel_tree import paths
from tasks.expressions import ExpressionError
from tasks.placeholders import Code, split, strings

ROOT = "secrets"


def values_for(project_id: int, template: Any) -> Mapping[str, str]:
    """Return the secrets that a template reads. Raises ExpressionError when one does not exist."""
    named: dict[str, str] = {}
    for name, path in _named(template):
        named.setdefault(name, path)
    if not named:
        return {}
    values = vault.read(project_id, named)
    for name, path in named.items():
        if name not in values:
            raise ExpressionError(f"there is no secret `{name}` in this project", path)
    return values


def _named(template: Any) -> Iterator[tuple[str, str]]:
    """Yield the name of each secret that is read, and where."""
    for path, text in strings(template):
        # Most templates name none; to look for the word costs next to nothing.
        if ROOT in text:
            for name in _of_text(text):
                yield name, path


def _of_text(text: str) -> Iterator[str]:
    try:
        trees = [compiled(part.text).tree for part in split(text) if isinstance(part, Code)]
    except (CompileError, ValueError):
        # Rendering says what is wrong with it.
        return
    for tree in trees:
        for (root, steps), _ in paths(tree):
            if root == ROOT and steps:
                yield str(steps[0])
