"""Keeping definitions, and starting runs of them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Any
from uuid import UUID

from django.db import transaction

from opscore.database import after_commit
from opscore.errors import ConflictError, NotFoundError
from opscore.logs import get_logger
from opscore.lookup import by_id_or_name
from opscore.models import Project
from tasks.expressions import render
from tasks.graph import Graph
from tasks.models import Run
from tasks.submission import start_run
from workflows.definition import Definition, from_data
from workflows.models import Workflow, WorkflowVersion

log = get_logger(__name__)
_DEFAULT_PRIORITY = 5


def upload(
    project: Project, definition: Definition, *, as_latest: bool = False
) -> tuple[WorkflowVersion, bool]:
    """Keep a definition as a version of the workflow that it names.

    Returns (version, created): content that is known already gives its version again; with
    `as_latest` only where that is the latest one. Raises ConflictError when its version word
    stands for another version. Safe to call from many processes at once.
    """
    content = definition.as_dict()
    digest = _digest(content)
    with transaction.atomic():
        workflow = _locked(project, definition)
        known = _known(workflow, digest)
        if known and (not as_latest or known == _latest(workflow)):
            return known, False
        _refuse_word(workflow, definition.version, known)
        number = _next_number(workflow, definition.version)
        version = WorkflowVersion.objects.create(
            workflow=workflow,
            number=number,
            version=definition.version or str(number),
            definition=content,
            digest=digest,
        )
        if workflow.description != definition.description:
            workflow.description = definition.description
            workflow.save(update_fields=["description"])
    said = {"workflow": workflow.name, "version": version.version}
    after_commit(lambda: log.info("workflow.uploaded", **said))
    return version, True


def _locked(project: Project, definition: Definition) -> Workflow:
    # The row lock makes uploads of one workflow wait for each other: versions are numbered
    # without gaps or collisions. get_or_create stands the race of two first uploads.
    Workflow.objects.get_or_create(
        project=project, name=definition.name, defaults={"description": definition.description}
    )
    return Workflow.objects.select_for_update().get(project=project, name=definition.name)


def _known(workflow: Workflow, digest: str) -> WorkflowVersion | None:
    return workflow.versions.filter(digest=digest).order_by("-number").first()


def _latest(workflow: Workflow) -> WorkflowVersion | None:
    return workflow.versions.order_by("-number").first()


def _refuse_word(workflow: Workflow, word: str, known: WorkflowVersion | None) -> None:
    if not word or not workflow.versions.filter(version=word).exists():
        return
    what = "is older than the latest one" if known else "exists with other content"
    raise ConflictError(
        f"Version {word} of {workflow.name} {what}; give the new content a new version."
    )


def _next_number(workflow: Workflow, word: str) -> int:
    """Return the next number; without a word of the author's it is one that is no such word."""
    last = workflow.versions.order_by("-number").values_list("number", flat=True).first()
    number = (last or 0) + 1
    while not word and workflow.versions.filter(version=str(number)).exists():
        number += 1
    return number


def _digest(content: Mapping[str, Any]) -> str:
    """Return the SHA-256 of the content; the order of tasks and keys does not count."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def find(project: Project, ref: str | UUID) -> Workflow:
    """Return a workflow by its id or name; raises NotFoundError with close names."""
    return by_id_or_name(Workflow.objects.filter(project=project), ref, "workflow")


def execute(
    project: Project,
    ref: str | UUID,
    *,
    inputs: Mapping[str, Any],
    version: str | None = None,
    priority: int | None = None,
    actor: str = "",
    parent_task_id: UUID | None = None,
    depth: int = 0,
    fairness_key: str = "",
) -> Run:
    """Start a run of a workflow's version (None: the latest), pinned to that version.

    The priority is the one given, else the definition's, else 5; the fairness key the one given,
    else the definition's, else `actor`. Joins an open transaction.
    Raises NotFoundError for an unknown workflow or version, InvalidError for wrong inputs,
    ConflictError when the workflow's concurrency key is taken and it does not queue.
    """
    workflow = find(project, ref)
    pinned = _version(workflow, version)
    definition, graph = _compiled(pinned.pk)
    if priority is None:
        priority = _DEFAULT_PRIORITY if definition.priority is None else definition.priority
    inputs = definition.check_inputs(inputs)
    return start_run(
        project,
        graph,
        inputs=inputs,
        workflow=workflow.name,
        version=pinned.version,
        workflow_version_id=pinned.pk,
        priority=priority,
        actor=actor,
        concurrency=definition.concurrency,
        parent_task_id=parent_task_id,
        depth=depth,
        fairness_key=fairness_key or _tenant(definition, inputs),
    )


def _tenant(definition: Definition, inputs: Mapping[str, Any]) -> str:
    scope = {"inputs": inputs, "run": {"workflow": definition.name}}
    return str(render(definition.fairness_key, scope, path="fairness_key"))


def version_of(workflow: Workflow, word: str) -> WorkflowVersion:
    """Return a version by its author's word, else by its number, or the `latest`.

    Raises NotFoundError that names the newest ones.
    """
    named = workflow.versions.filter(version=word).first()
    if named is None and word.isascii() and word.isdigit() and len(word) < 10:
        named = workflow.versions.filter(number=int(word)).first()
    return named or _version(workflow, None if word == "latest" else word)


def _version(workflow: Workflow, word: str | None) -> WorkflowVersion:
    versions = workflow.versions.defer("definition").order_by("-number")
    found = (versions.filter(version=word) if word else versions).first()
    if found:
        return found
    newest = ", ".join(versions.values_list("version", flat=True)[:5])
    raise NotFoundError(f"{workflow.name} has no version {word}. The newest are: {newest}.")


@lru_cache(maxsize=64)
def _compiled(version_id: UUID) -> tuple[Definition, Graph]:
    """Return a version's definition and graph; a version never changes."""
    content = WorkflowVersion.objects.values_list("definition", flat=True).get(pk=version_id)
    definition = from_data(content)
    return definition, definition.graph()
