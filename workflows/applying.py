"""Makes a project what some files say: workflows, schedules, routes, breakers of resources.

All of it in one transaction: where one file is wrong nothing changes, and a dry run is the same
work, taken back.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from django.db import transaction

from opscore.documents import Document, kind_of, read
from opscore.errors import InvalidError, OpsCoreError, Problem, TooLargeError
from opscore.models import Project
from opscore.texts import below
from workflows.appliers import KINDS, Change, apply_workflow
from workflows.definition import Definition
from workflows.reading import definition_of

#: Keys of a file that is no workflow, in the order in which they are applied.
SECTIONS = tuple(KINDS)
_EITHER = f"a workflow (`name`, `tasks`) or a map of {', '.join(SECTIONS)}"


@dataclass(frozen=True)
class File:
    """A text and what it is called; `.json` is JSON, everything else YAML."""

    path: str
    text: str


@dataclass(frozen=True)
class _Entry:
    """One thing that a file describes."""

    kind: str
    name: str
    said: Any
    file: str
    document: Document

    def placed(self, problem: Problem) -> Problem:
        """Return a problem of this thing with file, path and line."""
        prefix = "" if self.kind == "workflow" else below(self.kind, self.name)
        inner = problem.path if not prefix or not problem.path else f"{prefix}.{problem.path}"
        path = inner or prefix
        line = problem.line or self.document.line_of(path)
        return replace(problem, path=path, line=line, file=self.file)


def apply(
    project: Project, files: Sequence[File], *, actor: str = "", dry_run: bool = False
) -> list[Change]:
    """Create and change what the files describe, all or nothing; what they do not name stays.

    Files that say what is already so change nothing. With `dry_run` nothing is kept. Raises
    InvalidError with every problem, each with its file and line.
    """
    problems: list[Problem] = []
    entries = list(_entries(files, problems))
    problems += _twice(entries)
    _refuse(problems)
    with transaction.atomic():
        changes = []
        for entry in entries:
            try:
                changes.append(_applied(project, entry, actor))
            except OpsCoreError as error:
                problems += _placed(error, entry)
        _refuse(problems)
        if dry_run:
            transaction.set_rollback(True)
    return changes


def kinds_of(files: Sequence[File]) -> set[str]:
    """Return the kinds of things that the files describe, as far as they can be read."""
    return {entry.kind for entry in _entries(files, [])}


def _applied(project: Project, entry: _Entry, actor: str) -> Change:
    if isinstance(entry.said, Definition):
        change = apply_workflow(project, entry.said)
    else:
        change = KINDS[entry.kind].apply(project, entry.name, entry.said, actor)
    return replace(change, file=entry.file)


def _entries(files: Sequence[File], problems: list[Problem]) -> Iterator[_Entry]:
    """Yield workflows first: schedules name them."""
    found = [entry for file in files for entry in _read(file, problems)]
    order = ("workflow", *SECTIONS)
    yield from sorted(found, key=lambda entry: order.index(entry.kind))


def _read(file: File, problems: list[Problem]) -> Iterator[_Entry]:
    try:
        kind = "json" if file.path.lower().endswith(".json") else "yaml"
        document = read(file.text, kind, expected=_EITHER)
        if document.data.keys() & {*SECTIONS} and "tasks" not in document.data:
            yield from _settings(file, document, problems)
        elif document.data.keys() & {"name", "tasks"}:
            definition = definition_of(document)
            yield _Entry("workflow", definition.name, definition, file.path, document)
        else:
            problems.append(Problem(f"{_EITHER} is expected", "", 1, file.path))
    except InvalidError as error:
        problems += [replace(problem, file=file.path) for problem in error.problems]
    except TooLargeError as error:
        problems.append(Problem(str(error), file=file.path))


def _settings(file: File, document: Document, problems: list[Problem]) -> Iterator[_Entry]:
    problems += [replace(problem, file=file.path) for problem in document.problems]
    for section, things in document.data.items():
        if section not in SECTIONS:
            message = f"unknown key `{section}`; known: {', '.join(SECTIONS)}"
            problems.append(Problem(message, section, document.line_of(section), file.path))
        elif not isinstance(things, Mapping):
            message = f"a map of names is expected, not {kind_of(things)}"
            problems.append(Problem(message, section, document.line_of(section), file.path))
        else:
            for name, said in things.items():
                yield from _thing(_Entry(section, name, said, file.path, document), problems)


def _thing(entry: _Entry, problems: list[Problem]) -> Iterator[_Entry]:
    try:
        yield replace(entry, said=KINDS[entry.kind].read(entry.name, entry.said))
    except InvalidError as error:
        problems += _placed(error, entry)


def _twice(entries: Sequence[_Entry]) -> Iterator[Problem]:
    first: dict[tuple[str, str], _Entry] = {}
    for entry in entries:
        before = first.setdefault((entry.kind, entry.name), entry)
        if before is not entry:
            where = "name" if entry.kind == "workflow" else ""
            message = f"{entry.name!r} stands in {before.file} already"
            yield entry.placed(Problem(message, where))


def _placed(error: OpsCoreError, entry: _Entry) -> list[Problem]:
    problems = getattr(error, "problems", ()) or [Problem(str(error))]
    return [entry.placed(problem) for problem in problems]


def _refuse(problems: Sequence[Problem]) -> None:
    if problems:
        count = f"{len(problems)} problem{'s' * (len(problems) > 1)}"
        raise InvalidError(f"Nothing was changed: the files have {count}.", problems)
