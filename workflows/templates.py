"""Writes a definition out: other words for keys, `extends`, and `defaults` become plain tasks."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from opscore.documents import Document, kind_of, parent
from opscore.errors import Problem
from opscore.texts import below
from tasks.expressions import meant
from workflows.catalogue import PREFIX, shipped
from workflows.fields import DEFAULTS, TASK

MAX_TEMPLATES = 1_000
MAX_PROBLEMS = 100
#: Templates behind one task, chains and lists together.
MAX_BEHIND_ONE = 16
MAX_BLOCKS = 8
MAX_TASKS = 10_000
#: Characters that templates and defaults may add to a definition.
MAX_ADDED = 16 * 1024 * 1024
#: Key -> what stands for the whole map in its short form: `retry: 3`.
_SHORT = {"retry": "limit", "timeout": "run", "repeat": "max", "concurrency": "limit"}
_ALIASES = {alias: key for key, each in TASK.items() for alias in each.aliases}
_OF_FOR_EACH = {"max_parallel", "on_item_failure"}


class EnoughError(Exception):
    """There are more problems than are told."""


@dataclass
class Written(Document):
    """A definition as data, written out; it knows where in the text each value stands."""

    origins: dict[str, str] = field(default_factory=dict)
    """Path of what a template gave -> its path there."""
    renamed: dict[str, str] = field(default_factory=dict)
    """Path -> the same with the words that the author used."""
    _told: set[tuple[str, str]] = field(default_factory=set)

    def line_of(self, path: str) -> int | None:
        """Return the line of a path, or of the nearest thing around it."""
        while path:
            line = self.lines.get(self._source(path))
            if line:
                return line
            path = parent(path)
        return self.lines.get("")

    def is_there(self, path: str) -> bool:
        """Tell whether the text has this path, in the words that its author used."""
        return self._source(path) in self.lines

    def _source(self, path: str) -> str:
        """Return where in the text the value of a path stands."""
        path = self.renamed.get(path, path)
        path = self.origins.get(path, path)
        return self.renamed.get(path, path)

    def problem(self, message: str, path: str) -> Problem:
        """Return a problem with its line."""
        return Problem(message, self.renamed.get(path, path), self.line_of(path))

    def add(self, message: str, path: str) -> None:
        """Keep a problem; raises EnoughError when there are more than MAX_PROBLEMS."""
        self.keep(self.problem(message, path))

    def keep(self, problem: Problem) -> None:
        """Keep a problem that has its line, as `add` does."""
        # A slip in a template is told once, not for every task that is built on it.
        place = (self.origins.get(problem.path, problem.path), problem.message)
        if place in self._told:
            return
        self._told.add(place)
        self.problems.append(problem)
        if len(self.problems) > MAX_PROBLEMS:
            raise EnoughError


@dataclass
class Part:
    """A template, written out."""

    data: dict[str, Any]
    origins: dict[str, str] = field(default_factory=dict)
    """Path below the part (`.retry.limit`) -> path in the definition."""

    @cached_property
    def weight(self) -> int:
        """How much it adds to a task, in characters."""
        return len(json.dumps(self.data))


def written_out(document: Document) -> Written:
    """Return a document whose tasks have no `extends` and no aliases, and have the defaults.

    What is wrong with that becomes problems of the document; after the last one that is told,
    the rest is left as it was.
    """
    expansion = _Expansion(document)
    with suppress(EnoughError):
        expansion.expand()
    return expansion.written


class _Expansion:
    def __init__(self, source: Document) -> None:
        self.written = Written(dict(source.data), source.lines)
        self._duplicates = source.problems
        self._templates = self._map("templates")
        self._parts: dict[str, Part | None] = {}
        self._left = MAX_ADDED
        self._defaults: dict[tuple[bool, bool], Part] = {}
        self._has_defaults = bool(self._map("defaults"))
        self._count = 0

    def expand(self) -> None:
        """Write everything out; raises EnoughError."""
        for problem in self._duplicates:
            self.written.keep(problem)
        data = self.written.data
        self._check_templates()
        for section in ("tasks", "finally"):
            if isinstance(data.get(section), dict):
                data[section] = self._tasks(data[section], section, 1)

    def _map(self, key: str) -> dict[str, Any]:
        value = self.written.data.get(key)
        return value if isinstance(value, dict) else {}

    def _check_templates(self) -> None:
        if len(self._templates) > MAX_TEMPLATES:
            self._add("templates", f"at most {MAX_TEMPLATES} templates are allowed")
            self._templates = {}
        for name, data in self._templates.items():
            if not isinstance(data, dict):
                self._add(below("templates", name), f"a template is a map, not {kind_of(data)}")
        for name in self._templates:
            self._part(name, ())

    # -------------------------------------------------------- tasks
    def _tasks(self, tasks: dict[str, Any], path: str, depth: int) -> dict[str, Any]:
        self._count += len(tasks)
        if self._count > MAX_TASKS:
            # The reader counts them too, and says so.
            return tasks
        return {
            key: self._task(task, below(path, key), depth) if isinstance(task, dict) else task
            for key, task in tasks.items()
        }

    def _task(self, task: dict[str, Any], path: str, depth: int) -> dict[str, Any]:
        if not _ALIASES.keys().isdisjoint(task):
            task = self._without_aliases(task, path)
        if "extends" in task:
            part = self._base(task["extends"], path, ())
            task = self._on(part, {key: task[key] for key in task if key != "extends"}, path)
        if self._has_defaults:
            task = self._on(self._defaults_for(task), task, path)
        inner = task.get("tasks")
        if isinstance(inner, dict) and depth <= MAX_BLOCKS:
            task = {**task, "tasks": self._tasks(inner, f"{path}.tasks", depth + 1)}
        return task

    def _defaults_for(self, task: Mapping[str, Any]) -> Part:
        is_agents = (task.get("uses") or "agent") == "agent" and task.get("tasks") is None
        kind = (is_agents, task.get("for_each") is not None)
        if kind not in self._defaults:
            keys = {key for key in DEFAULTS if kind[key in _OF_FOR_EACH]}
            said = self._map("defaults").items()
            self._defaults[kind] = _part("defaults", {k: v for k, v in said if k in keys})
        return self._defaults[kind]

    def _on(self, part: Part, task: dict[str, Any], path: str) -> dict[str, Any]:
        """Return the task with the part under it."""
        self._left -= part.weight
        if self._left < 0:
            if self._left + part.weight >= 0:
                self._add(path, "templates and defaults make the definition larger than 16 MB")
            return task
        for place, origin in part.origins.items():
            if path + place not in self.written.lines:
                self.written.origins[path + place] = origin
        return merged(part.data, task)

    def _without_aliases(self, task: dict[str, Any], path: str) -> dict[str, Any]:
        plain: dict[str, Any] = {}
        for said, value in task.items():
            key = _ALIASES.get(said, said)
            if key in plain:
                self._add(below(path, said), f"`{said}` is another word for `{key}`; say it once")
                continue
            plain[key] = value
            if said != key:
                start = below(path, said)
                for place in _places(value, start):
                    self.written.renamed[below(path, key) + place[len(start) :]] = place
        return plain

    # -------------------------------------------------------- templates
    def _base(self, names: Any, path: str, behind: tuple[str, ...]) -> Part:
        """Return the templates of an `extends`, each on top of the one before."""
        where = below(path, "extends")
        listed = names if isinstance(names, list) else [names]
        base = Part({})
        for place, name in enumerate(listed[:MAX_BEHIND_ONE]):
            at = f"{where}[{place}]" if isinstance(names, list) else where
            if not isinstance(name, str):
                self._add(at, f"must be the name of a template, not {kind_of(name)}")
            elif self._is_known(name, at, behind):
                part = self._part(name, behind)
                if part:
                    base = Part(merged(base.data, part.data), {**base.origins, **part.origins})
        if len(listed) > MAX_BEHIND_ONE:
            self._add(where, f"at most {MAX_BEHIND_ONE} templates are allowed")
        return base

    def _is_known(self, name: str, at: str, behind: tuple[str, ...]) -> bool:
        if name not in self._templates and name not in shipped():
            known = [*self._templates, *shipped()]
            self._add(at, f"there is no template `{name}`{meant(name, known)}")
        elif name in behind:
            cycle = " -> ".join((*behind[behind.index(name) :], name))
            self._add(at, f"the templates extend each other: {cycle}")
        elif len(behind) >= MAX_BEHIND_ONE:
            self._add(at, f"more than {MAX_BEHIND_ONE} templates extend each other")
        else:
            return True
        return False

    def _part(self, name: str, behind: tuple[str, ...]) -> Part | None:
        if name not in self._parts:
            self._parts[name] = self._read(name, (*behind, name))
        return self._parts[name]

    def _read(self, name: str, behind: tuple[str, ...]) -> Part | None:
        if name.startswith(PREFIX):
            return _part(name, dict(shipped()[name]))
        data = self._templates[name]
        if not isinstance(data, dict):
            return None
        path = below("templates", name)
        data = self._without_aliases(data, path) if _ALIASES.keys() & data.keys() else dict(data)
        data.pop("description", None)
        base = self._base(data.pop("extends", []), path, behind)
        own = _part(path, data)
        return Part(merged(base.data, data), {**base.origins, **own.origins})

    def _add(self, path: str, message: str) -> None:
        self.written.add(message, path)


def _part(path: str, data: dict[str, Any]) -> Part:
    places = _places(data, path)
    return Part(data, {place[len(path) :]: place for place in places if place != path})


def merged(low: Mapping[str, Any], high: Mapping[str, Any]) -> dict[str, Any]:
    """Return `low` with `high` on it: maps are merged, all else is replaced.

    A key that `high` leaves empty is taken away.
    """
    both = dict(low)
    for key, value in high.items():
        under, over = _alike(key, both.get(key), value)
        is_deep = isinstance(under, dict) and isinstance(over, dict)
        both[key] = merged(under, over) if is_deep else over
    return both


def _alike(key: str, *pair: Any) -> Iterator[Any]:
    """Write a short form out where the other side is a map."""
    is_mixed = key in _SHORT and any(isinstance(value, dict) for value in pair)
    for value in pair:
        is_short = is_mixed and value is not None and not isinstance(value, dict)
        yield {_SHORT[key]: value} if is_short else value


def _places(value: Any, path: str) -> Iterator[str]:
    yield path
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _places(item, below(path, key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _places(item, f"{path}[{index}]")
