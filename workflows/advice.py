"""What is no mistake in a definition, but would make a run wait: who is missing at present."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

from agents.models import Agent
from opscore.models import Project
from workflows.models import Workflow
from workflows.spec import Definition
from workflows.values import WORKFLOW

MAX_WARNINGS = 100


def warnings_of(project: Project, definition: Definition) -> list[str]:
    """Return sentences for people, at most a hundred."""
    found = (*_nobody_offers(project, definition), *_unknown_workflows(project, definition))
    return list(islice(found, MAX_WARNINGS))


def _nobody_offers(project: Project, definition: Definition) -> Iterator[str]:
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
        yield f"{demand.path}: no agent offers `{demand.capability}`{labels} at present"


def _unknown_workflows(project: Project, definition: Definition) -> Iterator[str]:
    named = {
        task.uses.removeprefix(WORKFLOW).partition("@")[0]
        for task in definition.every_task()
        if task.executor == "workflow"
    }
    known = Workflow.objects.filter(project=project, name__in=named)
    missing = named - {definition.name} - set(known.values_list("name", flat=True))
    for name in sorted(missing):
        yield f"uses: there is no workflow `{name}` yet"
