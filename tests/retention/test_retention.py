"""Which runs are deleted, when, and with what."""

from __future__ import annotations

import gzip
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from uuid import UUID

import pytest
from django.db import connections, transaction

from agents.handlers import Context, HandlerError
from opscore.config import load_config
from opscore.models import Event
from tasks import housekeeping, payloads, retention
from tasks.graph import Graph, Node
from tasks.models import Attempt, Payload, Run, Task, TaskLog
from tasks.reconcile import wake_retries
from tasks.retention import Rule, retire
from tasks.retries import RetryPolicy
from tasks.submission import start_run
from tests.engine.conftest import Bench
from tests.engine.dags import chain
from tests.retention.conftest import OldRun

pytestmark = pytest.mark.django_db(transaction=True)
COMPLETED = Rule(("completed",), 30)
FAILED = Rule(("failed", "cancelled"), 90)


def drain(rule: Rule, folder: Path | None = None, batch: int = retention.BATCH) -> int:
    """Retire until nothing is left; return the number of batches."""
    batches = 0
    while retire(rule, folder, batch):
        batches += 1
        assert batches < 500
    return batches


def archived(folder: Path) -> dict[str, list[dict[str, list[dict[str, object]]]]]:
    found: dict[str, list[dict[str, list[dict[str, object]]]]] = {}
    for file in folder.glob("*.jsonl.gz"):
        for line in gzip.decompress(file.read_bytes()).splitlines():
            whole = json.loads(line)
            found.setdefault(whole["run"]["id"], []).append(whole)
    return found


def test_each_kind_of_end_has_its_own_age(bench: Bench, old_run: OldRun) -> None:
    def boom(task: Context) -> None:
        raise HandlerError("no", retryable=False)

    young, old = old_run(29), old_run(31)
    bench.does("work", boom)
    young_failure, old_failure = old_run(89), old_run(91)
    live = start_run(bench.project, chain(2), inputs={})
    drain(COMPLETED)
    drain(FAILED)
    kept = set(Run.objects.values_list("id", flat=True))
    assert kept == {young.id, young_failure.id, live.id}
    assert old.id not in kept
    assert old_failure.id not in kept
    assert Task.objects.count() == 8


def test_zero_days_keep_for_ever(old_run: OldRun) -> None:
    old_run(10_000)
    assert drain(Rule(("completed",), 0)) == 0
    assert Run.objects.count() == 1


def test_all_that_belongs_to_a_run_goes_with_it(bench: Bench, old_run: OldRun) -> None:
    run = talkative(bench, old_run)
    assert Attempt.objects.exists()
    assert TaskLog.objects.exists()
    assert Event.objects.filter(run_id=run.id).exists()
    assert Payload.objects.exists()
    drain(COMPLETED)
    Payload.objects.update(created_at="2020-01-01T00:00Z")
    housekeeping.clean_up()
    for model in (Run, Task, Attempt, TaskLog, Payload):
        assert not model.objects.exists()
    assert not Event.objects.filter(run_id=run.id).exists()


def talkative(bench: Bench, old_run: OldRun) -> Run:
    """Return a run with a retry, a log, events, and a result kept by reference."""

    def work(task: Context) -> str:
        task.log("one\ntwo \N{SNOWMAN}")
        if task.attempt == 1:
            raise HandlerError("not yet")
        return "x" * (load_config().inline_result_bytes + 1)

    soon = RetryPolicy(limit=1, initial_s=0.0)
    bench.does("other", work)
    run = start_run(
        bench.project, Graph.of([Node(key="a", capability="other", retry=soon)]), inputs={"n": 0.1}
    )
    bench.finish(run)
    wake_retries()
    bench.finish(run)
    Run.objects.filter(id=run.id).update(completed_at="2020-01-01T00:00Z")
    return run


def test_archive_holds_all_that_is_deleted(bench: Bench, old_run: OldRun, tmp_path: Path) -> None:
    run = talkative(bench, old_run)
    folder = tmp_path / "new" / "archive"
    drain(COMPLETED, folder)
    (line,) = archived(folder)[str(run.id)]
    assert line["run"]["inputs"] == {"n": 0.1}  # type: ignore[call-overload]
    (task,) = line["tasks"]
    assert task["result"] == "x" * (load_config().inline_result_bytes + 1)
    assert [row["text"] for row in line["logs"]] == ["one", "two ☃"] * 2
    assert [row["outcome"] for row in line["attempts"]] == ["failed"]
    assert "task.retrying" in {row["kind"] for row in line["events"]}
    (file,) = folder.iterdir()
    assert file.stat().st_mode & 0o077 == 0


def test_list_that_is_kept_by_reference_is_archived_and_kept_as_long(
    bench: Bench, old_run: OldRun, tmp_path: Path
) -> None:
    run = old_run()
    reference = payloads.save(bench.project.pk, '["a", "b"]')
    Payload.objects.update(created_at="2020-01-01T00:00Z")
    run.tasks.filter(number=1).update(items_ref=reference)
    assert housekeeping.delete_payloads() is False
    assert Payload.objects.exists()
    drain(COMPLETED, tmp_path)
    assert archived(tmp_path)[str(run.id)][0]["tasks"][1]["items"] == ["a", "b"]
    housekeeping.delete_payloads()
    assert not Payload.objects.exists()


def test_every_table_that_hangs_on_a_run_is_archived(old_run: OldRun, tmp_path: Path) -> None:
    run = old_run()
    drain(COMPLETED, tmp_path)
    hanging = {
        link.get_accessor_name()
        for model in (Run, Task)
        for link in model._meta.related_objects
        if link.related_model not in (Run, Task)
    }
    assert {"run", "tasks", "events", "attempts", "logs"} | hanging == set(
        archived(tmp_path)[str(run.id)][0]
    )


def test_archive_that_cannot_be_written_keeps_the_rows(
    old_run: OldRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old_run()
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setattr(load_config(), "archive_dir", str(tmp_path / "file"))
    housekeeping.clean_up()
    assert Run.objects.count() == 1


def test_crash_after_the_archive_loses_nothing(old_run: OldRun, tmp_path: Path) -> None:
    run = old_run()
    with transaction.atomic():
        assert retire(COMPLETED, tmp_path)
        transaction.set_rollback(True)
    assert run.tasks.count() == 3
    drain(COMPLETED, tmp_path)
    assert not Run.objects.exists()
    one, two = archived(tmp_path)[str(run.id)]
    assert one == two


def test_large_run_is_archived_once_and_deleted_in_batches(
    bench: Bench, old_run: OldRun, tmp_path: Path
) -> None:
    bench.does("work", lambda task: task.log("line\n" * 20))
    run = old_run(graph=chain(12))
    batches = drain(COMPLETED, tmp_path, batch=5)
    assert batches > 5
    assert not Run.objects.exists()
    assert not Event.objects.filter(run_id=run.id).exists()
    (line,) = archived(tmp_path)[str(run.id)]
    assert (len(line["tasks"]), len(line["logs"])) == (12, 240)


def test_batch_ends_before_it_is_too_large(old_run: OldRun) -> None:
    for _ in range(5):
        old_run()
    assert retire(COMPLETED, None, batch=9)
    assert Run.objects.count() == 3


def test_run_that_somebody_holds_is_left_for_later(old_run: OldRun) -> None:
    held, free = old_run(), old_run()
    with ThreadPoolExecutor(1) as other, transaction.atomic():
        Run.objects.select_for_update(no_key=True).get(id=held.id)
        other.submit(_drain_and_close).result()
        assert set(Run.objects.values_list("id", flat=True)) == {held.id}
    assert Run.objects.filter(id=free.id).exists() is False
    assert drain(COMPLETED) == 1


def _drain_and_close(folder: Path | None = None) -> None:
    try:
        drain(COMPLETED, folder, batch=6)
    finally:
        connections.close_all()


def test_many_beats_at_once_delete_and_archive_each_run_once(
    old_run: OldRun, tmp_path: Path
) -> None:
    runs = [old_run() for _ in range(20)]
    with ThreadPoolExecutor(4) as beats:
        for done in [beats.submit(_drain_and_close, tmp_path) for _ in range(4)]:
            done.result()
    drain(COMPLETED, tmp_path)
    assert not Run.objects.exists()
    assert {key: len(lines) for key, lines in archived(tmp_path).items()} == {
        str(run.id): 1 for run in runs
    }


def link(child: Run, parent: Run) -> None:
    task = parent.tasks.order_by("number")[0]
    Run.objects.filter(id=child.id).update(parent_task_id=task.id)


def statuses_left() -> set[UUID]:
    return set(Run.objects.values_list("id", flat=True))


def test_run_below_another_goes_with_it_and_not_before(old_run: OldRun, tmp_path: Path) -> None:
    top, child, grandchild = old_run(31), old_run(99), old_run(99)
    link(child, top)
    link(grandchild, child)
    assert drain(Rule(("completed",), 40), tmp_path) == 0
    assert statuses_left() == {top.id, child.id, grandchild.id}
    drain(COMPLETED, tmp_path, batch=2)
    assert statuses_left() == set()
    assert {len(lines) for lines in archived(tmp_path).values()} == {1}


def test_run_is_kept_while_one_below_it_is_at_work(bench: Bench, old_run: OldRun) -> None:
    top, other = old_run(), old_run()
    child = start_run(bench.project, chain(2), inputs={})
    link(child, top)
    drain(COMPLETED)
    assert statuses_left() == {top.id, child.id}
    assert not Run.objects.filter(id=other.id).exists()


def test_orphaned_payloads_and_old_answers_are_deleted(bench: Bench) -> None:
    for day in ("2020-01-01", "2999-01-01"):
        payload = Payload.objects.create(project=bench.project, content=b"", size=0)
        Payload.objects.filter(id=payload.id).update(created_at=f"{day}T00:00Z")
    housekeeping.clean_up()
    assert Payload.objects.get().created_at.year == 2999
