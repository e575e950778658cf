"""How one thing of a file is made so: a function for each kind, which says what it changed."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import yaml
from rest_framework import serializers

from agents import breakers, routes
from agents.breaker_api import RuleSerializer
from agents.models import Breaker, Route
from agents.routing_api import PutRouteSerializer
from opscore.api.problems import translate
from opscore.breaker import Rule
from opscore.documents import kind_of
from opscore.errors import InvalidError, Problem
from opscore.models import Project
from workflows import registry, schedules
from workflows.definition import Definition
from workflows.models import Schedule, WorkflowVersion
from workflows.schedule_serializers import CreateScheduleSerializer

#: Lines of one difference that are told.
MAX_DIFF = 400
CHANGES = ("create", "change", "unchanged")
#: What counts where a file says nothing of a schedule. Not `paused`: somebody may have paused it
#: by hand, and only a file that says so changes that.
_SCHEDULE: Mapping[str, Any] = {
    "version": None,
    "cron": None,
    "every_s": None,
    "timezone": "UTC",
    "inputs": {},
    "slot_input": None,
    "priority": None,
    "fairness_key": "",
    "catch_up": "latest",
    "catch_up_window_s": 86400,
    "overlap": "allow",
}
_RULE = asdict(Rule())


@dataclass(frozen=True)
class Change:
    """What became, or would become, of one thing."""

    kind: str
    name: str
    change: str
    """One of `CHANGES`."""
    diff: str = ""
    """Of what was changed: lines that begin with + or -."""
    version: str = ""
    """Of a workflow: the version that is the latest one now."""
    file: str = ""


@dataclass(frozen=True)
class Kind:
    """How things of one kind are read and made so."""

    read: Callable[[str, Any], dict[str, Any]]
    """Given a name and what a file says, returns the fields; raises InvalidError."""
    apply: Callable[[Project, str, Mapping[str, Any], str], Change]
    """Given the project, a name, the fields and who does it."""


def apply_workflow(project: Project, definition: Definition) -> Change:
    """Have this definition be the latest version."""
    old = (
        WorkflowVersion.objects.filter(workflow__project=project, workflow__name=definition.name)
        .order_by("-number")
        .first()
    )
    version, created = registry.upload(project, definition, as_latest=True)
    change = _change(
        "workflow", definition.name, old.definition if old else None, version.definition
    )
    word = change.change if old is None or created else "unchanged"
    return Change("workflow", definition.name, word, change.diff, version.version)


def _schedule_said(name: str, said: Any) -> dict[str, Any]:
    given = _checked(CreateScheduleSerializer, {**_mapping(said), "name": name})
    del given["name"]
    return {**_SCHEDULE, **given}


def _schedule(project: Project, name: str, wanted: Mapping[str, Any], _actor: str) -> Change:
    present = Schedule.objects.filter(project=project, name=name).first()
    if present is None:
        schedules.create(project, name=name, **wanted)
        return Change("schedules", name, "create")
    old = {field: getattr(present, field) for field in wanted}
    change = _change("schedules", name, old, wanted)
    if change.change == "change":
        schedules.change(project, present.pk, **wanted)
    return change


def _route_said(_name: str, said: Any) -> dict[str, Any]:
    return {"weights": {}, **_checked(PutRouteSerializer, _mapping(said))}


def _route(project: Project, name: str, wanted: Mapping[str, Any], actor: str) -> Change:
    present = Route.objects.filter(project=project, capability=name)
    change = _change("routes", name, present.values("strategy", "weights").first(), wanted)
    if change.change != "unchanged":
        routes.put(project, name, wanted["strategy"], wanted["weights"], actor)
    return change


def _resource_said(_name: str, said: Any) -> dict[str, Any]:
    return {**_RULE, **_checked(RuleSerializer, _mapping(said))}


def _resource(project: Project, name: str, wanted: Mapping[str, Any], actor: str) -> Change:
    present = Breaker.objects.filter(project=project, kind="resource", name=name)
    change = _change("resources", name, present.values(*_RULE).first(), wanted)
    if change.change != "unchanged":
        breakers.configure(project, "resource", name, wanted, actor)
    return change


#: Key of a file -> its kind; the order in which they are applied.
KINDS: Mapping[str, Kind] = {
    "schedules": Kind(_schedule_said, _schedule),
    "routes": Kind(_route_said, _route),
    "resources": Kind(_resource_said, _resource),
}
#: Kinds that only keys with the scope admin may apply, as over their own calls.
FOR_ADMINS = frozenset({"routes", "resources"})


def _mapping(said: Any) -> dict[str, Any]:
    if not isinstance(said, dict):
        raise InvalidError("", [Problem(f"a map is expected, not {kind_of(said)}")])
    return said


def _checked(kind: type[serializers.Serializer[Any]], said: Mapping[str, Any]) -> dict[str, Any]:
    serializer = kind(data=said)
    try:
        serializer.is_valid(raise_exception=True)
    except serializers.ValidationError as error:
        failure = translate(error)
        raise InvalidError("", failure.problems if failure else ()) from None
    return dict(serializer.validated_data)


def _change(kind: str, name: str, old: Mapping[str, Any] | None, new: Mapping[str, Any]) -> Change:
    if old is None:
        return Change(kind, name, "create")
    if old == new:
        return Change(kind, name, "unchanged")
    return Change(kind, name, "change", _diff(old, new))


def _diff(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    lines = list(difflib.unified_diff(_lines(old), _lines(new), n=1, lineterm=""))[2:]
    left = len(lines) - MAX_DIFF
    more = [f"… and {left} more lines"] if left > 0 else []
    return "\n".join([*lines[:MAX_DIFF], *more])


def _lines(said: Mapping[str, Any]) -> list[str]:
    text: str = yaml.safe_dump(dict(said), sort_keys=True, allow_unicode=True)
    return text.splitlines()
