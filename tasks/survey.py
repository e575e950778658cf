"""Reads for explanations: once for all tasks that are explained together."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from typing import Any, ParamSpec, TypeVar, cast

from tasks.models import Task

P = ParamSpec("P")
T = TypeVar("T")


class Survey:
    """Tasks that are explained together; what is equal for several of them is read once."""

    def __init__(self, tasks: Iterable[Task]) -> None:
        self.tasks = tuple(tasks)
        self._known: dict[Hashable, Any] = {}

    def once(self, read: Callable[P, T], *about: P.args, **more: P.kwargs) -> T:
        """Return `read(*about)`, of hashable values; the same is read only once."""
        key = (read, *about)
        if key not in self._known:
            self._known[key] = read(*about, **more)
        return cast("T", self._known[key])
