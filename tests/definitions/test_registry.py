"""The registry: versions that never change, and runs pinned to them."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import uuid4

import pytest
from django.db import connections

from opscore.errors import ConflictError, InvalidError, NotFoundError
from opscore.models import Project
from tasks.models import Run
from workflows import registry
from workflows.definition import Definition, from_data
from workflows.models import Workflow, WorkflowVersion

pytestmark = pytest.mark.django_db


def definition(note: Any = "", *, version: str = "", **top: Any) -> Definition:
    task = {"capability": "code_review", "with": {"note": note, "repo": "${{ inputs.repo }}"}}
    schema = {"properties": {"repo": {"type": "string", "default": "."}}}
    said = {"name": "review", "inputs": schema, "tasks": {"t": task}, **top}
    return from_data(said | ({"version": version} if version else {}))


def test_a_first_upload_makes_the_workflow_and_version_1(project: Project) -> None:
    version, created = registry.upload(project, definition(description="Reviews."))
    assert created
    assert (version.number, version.version) == (1, "1")
    assert version.workflow.name == "review"
    assert version.workflow.description == "Reviews."
    assert from_data(version.definition) == definition(description="Reviews.")


def test_the_same_content_gives_the_same_version(project: Project) -> None:
    first, _ = registry.upload(project, definition("a"))
    registry.upload(project, definition("b"))
    again, created = registry.upload(project, definition("a"))
    assert (again, created) == (first, False)
    assert WorkflowVersion.objects.count() == 2


def test_a_version_word_stands_for_one_content(project: Project) -> None:
    version, _ = registry.upload(project, definition("a", version="1.0"))
    assert version.version == "1.0"
    assert registry.upload(project, definition("a", version="1.0")) == (version, False)
    with pytest.raises(ConflictError, match=r"Version 1\.0 of review exists with other content"):
        registry.upload(project, definition("b", version="1.0"))
    later, created = registry.upload(project, definition("b", version="1.1"))
    assert (later.number, created) == (2, True)


def test_the_next_number_is_never_an_authors_word(project: Project) -> None:
    registry.upload(project, definition("a", version="2"))
    version, _ = registry.upload(project, definition("b"))
    assert (version.number, version.version) == (3, "3")


def test_a_later_upload_changes_the_description(project: Project) -> None:
    registry.upload(project, definition("a", description="old"))
    version, _ = registry.upload(project, definition("b", description="new"))
    assert Workflow.objects.get().description == version.workflow.description == "new"


@pytest.mark.django_db(transaction=True)
def test_uploads_at_the_same_time_get_numbers_of_their_own(project: Project) -> None:
    def upload(note: int) -> tuple[int, bool]:
        try:
            # Every content comes twice: one of both creates it.
            version, created = registry.upload(project, definition(str(note // 2)))
            return version.number, created
        finally:
            connections.close_all()

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(upload, range(16)))
    assert {number for number, _ in answers} == set(range(1, 9))
    assert sum(created for _, created in answers) == 8


def test_a_workflow_is_found_by_name_and_by_id(project: Project) -> None:
    version, _ = registry.upload(project, definition())
    assert registry.find(project, "review") == version.workflow
    assert registry.find(project, version.workflow_id) == version.workflow
    assert registry.find(project, str(version.workflow_id)) == version.workflow


def test_an_unknown_workflow_is_not_found_but_a_close_one_is_named(project: Project) -> None:
    registry.upload(project, definition())
    with pytest.raises(NotFoundError, match=r"no workflow reveiw\. Did you mean review"):
        registry.find(project, "reveiw")
    with pytest.raises(NotFoundError, match="There is no workflow"):
        registry.find(project, uuid4())


def test_another_projects_workflow_is_not_found(project: Project) -> None:
    version, _ = registry.upload(Project.objects.create(slug="other"), definition())
    for ref in ("review", version.workflow_id):
        with pytest.raises(NotFoundError):
            registry.find(project, ref)


def test_a_run_is_pinned_to_a_version(project: Project) -> None:
    first, _ = registry.upload(project, definition("a", version="1.0", priority=8))
    second, _ = registry.upload(project, definition("b", version="2.0"))
    run = registry.execute(project, "review", inputs={}, version="1.0")
    assert (run.workflow, run.version, run.workflow_version_id) == ("review", "1.0", first.pk)
    assert run.priority == 8
    latest = registry.execute(project, "review", inputs={"repo": "x"}, priority=2)
    assert (latest.workflow_version_id, latest.priority) == (second.pk, 2)
    stored = Run.objects.get(pk=run.pk)
    assert stored.inputs == {"repo": "."}
    assert stored.tasks.get().inputs["note"] == "a"
    assert Run.objects.get(pk=latest.pk).inputs == {"repo": "x"}
    assert registry.execute(project, "review", inputs={}).priority == 5


def test_a_run_outputs_end_with_the_end_node(project: Project) -> None:
    registry.upload(project, definition(outputs={"x": "${{ tasks.t.result }}"}))
    run = registry.execute(project, "review", inputs={})
    assert sorted(run.tasks.values_list("uses", flat=True)) == ["agent", "end"]


def test_wrong_inputs_and_unknown_versions_start_nothing(project: Project) -> None:
    registry.upload(project, definition(version="1.0"))
    with pytest.raises(InvalidError) as caught:
        registry.execute(project, "review", inputs={"repo": 5})
    assert [problem.path for problem in caught.value.problems] == ["inputs.repo"]
    with pytest.raises(NotFoundError, match=r"no version 7\. The newest are: 1\.0"):
        registry.execute(project, "review", inputs={}, version="7")
    with pytest.raises(NotFoundError):
        registry.execute(project, "other", inputs={})
    assert not Run.objects.exists()


def test_work_belongs_to_who_is_said_then_to_whom_the_workflow_names(project: Project) -> None:
    registry.upload(project, definition(fairness_key="${{ inputs.repo }}"))

    def tenant(repo: str, said: str = "") -> str:
        inputs = {"repo": repo}
        run = registry.execute(project, "review", inputs=inputs, fairness_key=said, actor="ci")
        return run.fairness_key

    assert (tenant("a"), tenant("a", "b"), tenant("")) == ("a", "b", "ci")
    registry.upload(project, definition())
    assert tenant("a") == "ci"


def test_the_key_of_a_tenant_reads_inputs_alone() -> None:
    with pytest.raises(InvalidError) as refused:
        definition(fairness_key="${{ tasks.t.result }}")
    [problem] = refused.value.problems
    assert (problem.path, "nothing has run yet" in problem.message) == ("fairness_key", True)
