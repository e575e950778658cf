"""What is no mistake in a definition, but would make a run wait: who is missing at present."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain, islice

from agents.models import Agent
from opscore.documents import Document
from opscore.errors import Problem
from opscore.models import Project
from opscore.texts import below
from workflows.models import Workflow
from workflows.spec import Definition, TaskSpec
from workflows.templates import written_out
from workflows.values import WORKFLOW

MAX_WARNINGS = 100
#: Path in the definition, and a sentence for people.
_Found = tuple[str, str]


def warnings_of(project: Project, definition: Definition, document: Document) -> list[Problem]:
    """Return at most a hundred warnings, by line; the definition is what the document says."""
    found = chain(_nobody_offers(project, definition), _unknown_workflows(project, definition))
    kept = list(islice(found, MAX_WARNINGS))
    if not kept:
        return []
    written = written_out(document)
    warnings = (written.problem(message, path) for path, message in kept)
    return sorted(warnings, key=lambda warning: warning.line or 0)


def _nobody_offers(project: Project, definition: Definition) -> Iterator[_Found]:
    agents = Agent.objects.filter(project=project, desired="running").exclude(
        status__in=("error", "terminated")
    )
    offers = {
        (frozenset(capabilities), frozenset(labels))
        for capabilities, labels in agents.values_list("capabilities", "labels")
    }
    told = set()
    for demand in definition.demands():
        wanted = (demand.capability, demand.requires)
        if wanted in told or any(
            demand.capability in capabilities and labels.issuperset(demand.requires)
            for capabilities, labels in offers
        ):
            continue
        told.add(wanted)
        labels = f" with {', '.join(demand.requires)}" if demand.requires else ""
        yield demand.path, f"no agent offers `{demand.capability}`{labels} at present"


def _unknown_workflows(project: Project, definition: Definition) -> Iterator[_Found]:
    first: dict[str, str] = {}
    for path, task in _every_task(definition):
        if task.executor == "workflow":
            first.setdefault(task.uses.removeprefix(WORKFLOW).partition("@")[0], path)
    known = Workflow.objects.filter(project=project, name__in=first)
    there = {definition.name, *known.values_list("name", flat=True)}
    for name, path in first.items():
        if name not in there:
            yield below(path, "uses"), f"there is no workflow `{name}` yet"


def _every_task(definition: Definition) -> Iterator[tuple[str, TaskSpec]]:
    yield from _placed(definition.tasks, "tasks")
    yield from _placed(definition.finally_, "finally")


def _placed(tasks: Iterable[TaskSpec], section: str) -> Iterator[tuple[str, TaskSpec]]:
    """Yield each task with its path, those of blocks too."""
    for task in tasks:
        path = below(section, task.key)
        yield path, task
        if task.block:
            yield from _placed(task.block.tasks, below(path, "tasks"))
