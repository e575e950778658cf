"""The house itself: sizes, names, and the places where things may be written."""

from __future__ import annotations

import ast
import re
import subprocess
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import opscore
from opscore.config import ROOT, settings_page

APPS = ("opscore", "agents", "tasks", "webhooks", "workflows", "opscore_sdk")
VAGUE = {"utils", "helpers", "services", "common", "manager", "base", "misc"}


@cache
def tracked() -> tuple[str, ...]:
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    return tuple(name for name in listed if (ROOT / name).exists())


def modules() -> Iterator[Path]:
    for name in tracked():
        if name.startswith(APPS) and name.endswith(".py") and "/migrations/" not in name:
            yield ROOT / name


def test_no_file_is_longer_than_400_lines() -> None:
    long = {
        name: lines
        for name in tracked()
        if name.endswith(".py") and "/migrations/" not in name
        if (lines := len((ROOT / name).read_text().splitlines())) > 400
    }
    assert not long


def test_no_function_is_longer_than_40_lines() -> None:
    long = [
        f"{path.relative_to(ROOT)}:{node.name}"
        for path in modules()
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        if (node.end_lineno or 0) - node.lineno >= 55
    ]
    assert long == []


def test_root_holds_fewer_than_25_entries() -> None:
    assert len({name.split("/")[0] for name in tracked()}) < 25


def test_no_module_has_a_vague_name() -> None:
    # Django asks for `base` in the package of a database backend.
    apart = {"embedded", "nowhere"}
    named = {path.stem for path in modules() if path.parent.name not in apart}
    assert not VAGUE & named


def test_statuses_are_written_in_one_place_of_each_app() -> None:
    # A status in what SQL sets (not in its conditions), in an ORM update, or assigned.
    write = re.compile(
        r"""\bSET\b(?:(?!\b(?:WHERE|FROM|RETURNING)\b|\"\"\").)*?(?<![.\w])status\s*=
            |\.update\([^)]*\bstatus=
            |^\s*[\w.]+\.status\ =\ """,
        re.DOTALL | re.MULTILINE | re.VERBOSE,
    )
    writers = {
        path.relative_to(ROOT)
        for path in modules()
        if {"tasks", "agents"} & set(path.relative_to(ROOT).parts)
        if write.search(path.read_text())
    }
    places = {path.parent if path.parent.name == "transitions" else path for path in writers}
    assert {str(place) for place in places} == {"tasks/transitions", "agents/transitions.py"}


def test_no_limit_counts_again_for_each_row() -> None:
    # A join may ask the subquery anew for each row, and those that are locked by then are
    # skipped: more rows than the limit. `= ANY(ARRAY(…))` asks once.
    assert list(asked_again("id IN (SELECT f(id) FROM x LIMIT 1 FOR UPDATE SKIP LOCKED)"))
    found = {str(path): list(asked_again(path.read_text())) for path in modules()}
    assert not {path: queries for path, queries in found.items() if queries}


def asked_again(source: str) -> Iterator[str]:
    for begin in re.finditer(r"\bIN \(\s*SELECT\b", source):
        depth, end = 1, begin.end()
        while depth and end < len(source):
            depth += {"(": 1, ")": -1}.get(source[end], 0)
            end += 1
        if "SKIP LOCKED" in source[begin.start() : end]:
            yield source[begin.start() : end]


def test_version_is_the_changelogs() -> None:
    found = re.search(r"^## \[?(\d+\.\d+\.\d+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert found
    assert found[1] == opscore.__version__


def test_sdk_has_the_same_version() -> None:
    project = tomllib.loads((ROOT / "opscore_sdk/pyproject.toml").read_text())["project"]
    assert project["version"] == opscore.__version__


def test_every_promise_names_a_test_that_exists() -> None:
    promised = re.findall(r"`(test_\w+)`", (ROOT / "docs/guarantees.md").read_text())
    written = {
        node.name
        for path in (ROOT / "tests").rglob("test_*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef)
    }
    assert promised
    assert set(promised) <= written


def test_settings_page_is_what_the_code_says() -> None:
    assert (ROOT / "docs/settings.md").read_text() == settings_page()
