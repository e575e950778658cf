"""The workflow of the example with its real functions, on the engine and in virtual time."""

from __future__ import annotations

from typing import Any

import pytest

from agents.handlers import Context, HandlerError, load
from examples.repo_review.client import WORKFLOW
from examples.repo_review.dependencies import dependencies
from examples.repo_review.lint import lint
from examples.repo_review.ranking import rank_files
from tasks.models import Run
from tests.examples.conftest import Workshop
from workflows.testing import Rehearsal
from workflows.testing import rehearsal as rehearsal


@pytest.fixture
def review(rehearsal: Rehearsal) -> Rehearsal:
    for capability, function in load(["examples.repo_review.handlers"]).items():
        rehearsal.does(capability, function)
    rehearsal.does("lint", lambda task: lint(**task.inputs))
    rehearsal.does("dependencies", lambda task: dependencies(**task.inputs, say=task.log))
    rehearsal.does("ranking", lambda task: rank_files(**task.inputs))
    return rehearsal


def reviewed(review: Rehearsal, workshop: Workshop, **inputs: Any) -> tuple[Run, str]:
    run = review.finish(review.start(WORKFLOW, {"repo": str(workshop.root), **inputs}))
    assert run.status == "completed", run.error
    return run, review.outputs(run)["report"]


def test_hot_files_are_looked_at_and_the_worst_gets_a_dive(
    review: Rehearsal, shop: Workshop
) -> None:
    run, report = reviewed(review, shop)
    assert review.calls["file_closeup"][0]["path"] == "shop/cart.py"
    assert [call["path"] for call in review.calls["deep_dive"]] == ["shop/cart.py"]
    assert review.tasks(run)["closeup[2]"] == "completed"
    section = report.split("### `shop/cart.py`")[1].split("###")[0]
    assert "**Begin with `cart` (line 1)**: complexity 17 in 17 lines" in section
    assert "**Tests**: none found" in section
    assert "**Ask** Ann (4 changes, the last on 2024-01-06), Bob" in section
    assert "**Changes together with** `shop/constants.py` (6 of 6 times)" in section
    assert reviewed(review, shop)[1] == report


def test_number_of_close_ups_and_threshold_are_inputs(review: Rehearsal, shop: Workshop) -> None:
    run, report = reviewed(review, shop, closeups=1, dive_above=1)
    assert len(review.calls["file_closeup"]) == 1
    assert review.tasks(run)["dive"] == "skipped"
    assert report.count("\n### ") == 1
    assert "Changes together" not in report


@pytest.mark.parametrize("depth", ["1", "2"])
def test_short_history_skips_the_dive(review: Rehearsal, shop: Workshop, depth: str) -> None:
    run, report = reviewed(review, shop.clone("shallow", "--depth", depth))
    skipped = depth == "1"
    assert review.tasks(run)["dive"] == ("skipped" if skipped else "completed")
    assert "### `shop/cart.py`" in report


def test_nothing_to_look_at_gives_a_report_too(review: Rehearsal, workshop: Workshop) -> None:
    run, report = reviewed(review, workshop)
    assert review.tasks(run)["dive"] == "skipped"
    assert "closeup[0]" not in review.tasks(run)
    assert "one by one" not in report
    workshop.write("one.py", "def f(a):\n    return a or 1\n")
    assert "### `one.py`" in reviewed(review, workshop)[1]


def test_one_failed_close_up_costs_no_report(review: Rehearsal, shop: Workshop) -> None:
    look = review.handlers["file_closeup"]

    def fail(task: Context) -> Any:
        if task.inputs["path"] == "shop/tax.py":
            raise HandlerError("the disk is away", type="io")
        return look(task)

    review.does("file_closeup", fail)
    _, report = reviewed(review, shop)
    assert "1 of them could not be looked at." in report
    assert "### `shop/cart.py`" in report
    assert "### `shop/tax.py`" not in report
