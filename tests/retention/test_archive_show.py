"""The command that reads archives."""

from __future__ import annotations

import gzip
import json
from io import StringIO
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command

from tasks.models import Run
from tasks.retention import Rule, retire
from tests.retention.conftest import OldRun

pytestmark = pytest.mark.django_db(transaction=True)


def show(*words: object) -> str:
    output = StringIO()
    call_command("archive_show", *map(str, words), stdout=output)
    return output.getvalue()


@pytest.fixture
def runs(old_run: OldRun, tmp_path: Path) -> list[Run]:
    runs = [old_run(), old_run()]
    while retire(Rule(("completed",), 30), tmp_path, batch=1):
        pass
    return runs


def test_runs_of_a_folder_and_of_a_file_are_listed(runs: list[Run], tmp_path: Path) -> None:
    lines = show(tmp_path).splitlines()
    assert {line.split()[0] for line in lines} == {str(run.id) for run in runs}
    assert all("completed" in line and "3 tasks" in line for line in lines)
    assert len(show(next(tmp_path.iterdir())).splitlines()) == 1


def test_run_is_printed_whole(runs: list[Run], tmp_path: Path) -> None:
    printed = json.loads(show(tmp_path, runs[1].id))
    assert printed["run"]["id"] == str(runs[1].id)
    assert [task["result"] for task in printed["tasks"]] == [{"did": f"t{n}"} for n in range(3)]


def test_run_that_is_not_there_is_named(runs: list[Run], tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="holds no run zebra"):
        show(tmp_path, "zebra")


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (None, "No such file"),
        (b"plain text", "it is not gzip"),
        (gzip.compress(b"no json"), "damaged"),
        (gzip.compress(b'{"run": {"id": "x"}}' * 9)[:-9], "damaged"),
        (gzip.compress(b"[1]\n"), "damaged"),
    ],
    ids=["missing", "not gzip", "not json", "cut off", "another list"],
)
def test_what_is_no_archive_is_refused_in_a_sentence(
    tmp_path: Path, content: bytes | None, sentence: str
) -> None:
    file = tmp_path / "file.jsonl.gz"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(CommandError, match=sentence) as refused:
        show(file)
    assert str(file) in str(refused.value)
