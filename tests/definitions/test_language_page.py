"""The page about the language and the schema for editors say what the code says."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest

from opscore.documents import read
from workflows.definition import json_schema, parse
from workflows.fields import TASK, TOP, WITH

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "language.md").read_text()
EXAMPLES = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda text: read(text).data["name"])
def test_every_example_is_a_good_definition(example: str) -> None:
    parse(example)
    jsonschema.Draft202012Validator(json_schema()).validate(read(example).data)


def test_every_key_is_explained() -> None:
    keys = {*TASK, *TOP, *(key for table in WITH.values() for key in table)}
    keys |= {alias for each in TASK.values() for alias in each.aliases}
    keys |= {key for each in TASK.values() if each.shape for key in each.shape.table}
    assert {key for key in keys if not re.search(rf"\b{key}\b", PAGE)} == set()


def test_the_shipped_schema_is_the_one_of_the_code() -> None:
    shipped = ROOT / "docs" / "workflow.schema.json"
    written = subprocess.run(
        [sys.executable, "-m", "workflows.definition"], cwd=ROOT, capture_output=True, check=True
    ).stdout.decode()
    assert json.loads(written) == json_schema()
    assert shipped.read_text() == written, (
        "run python -m workflows.definition > docs/workflow.schema.json"
    )


@pytest.mark.parametrize(
    ("task", "good"),
    [
        ({"capability": "c"}, True),
        ({}, False),
        ({"uses": "wait", "with": {"duration": "1m"}}, True),
        ({"uses": "wait", "with": {"durations": "1m"}}, False),
        ({"uses": "approval", "with": {"on_expiry": "perhaps"}}, False),
        ({"tasks": {"i": {"capability": "c"}}}, True),
        ({"tasks": {"i": {"capabilty": "c"}}}, False),
        ({"extends": "t"}, True),
        ({"capability": "c", "depends_on": "x", "when": "true"}, True),
        ({"capability": "c", "retry": {"backoff": {"jitter": "half"}}}, False),
        ({"capability": "c", "timeout": {"run": 5}, "repeat": 3}, True),
    ],
)
def test_editors_are_told_what_the_reader_tells(task: dict[str, object], good: bool) -> None:
    validator = jsonschema.Draft202012Validator(json_schema())
    assert validator.is_valid({"name": "x", "tasks": {"t": task}}) is good
