"""What the fixture `rehearsal` promises to those who test their own workflows."""

from __future__ import annotations

import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from agents.handlers import Context, HandlerError
from opscore.errors import InvalidError
from tasks import control, stuck
from tasks.models import RateWindow, Run
from workflows.definition import parse
from workflows.testing import Rehearsal, RehearsalError

DAY = 86_400.0
#: The test's own time is in the virtual time too.
NEAR = 20.0


def lasted(run: Run) -> float:
    assert run.completed_at is not None
    return (run.completed_at - run.created_at).total_seconds()


def refuse(context: Context) -> Any:
    raise HandlerError("no luck", type="unlucky")


# ------------------------------------------------------------ time
def test_thirty_days_of_waiting_take_no_time(rehearsal: Rehearsal) -> None:
    rehearsal.does("greet", lambda task: f"Hello, {task.inputs['name']}!")
    began_at = time.monotonic()
    run = rehearsal.start(
        """
name: patient
inputs: {type: object, properties: {name: {type: string}}}
tasks:
  month: {uses: wait, with: {duration: 30d}}
  greet: {needs: month, capability: greet, with: {name: "${{ inputs.name }}"}}
outputs: {text: "${{ tasks.greet.result }}"}
""",
        {"name": "Ada"},
    )
    assert rehearsal.finish(run).status == "completed"
    assert rehearsal.outputs(run) == {"text": "Hello, Ada!"}
    assert rehearsal.elapsed_s == pytest.approx(30 * DAY, abs=NEAR)
    assert rehearsal.elapsed_s >= 30 * DAY
    assert lasted(run) == pytest.approx(30 * DAY, abs=NEAR)
    assert time.monotonic() - began_at < NEAR


def test_retry_ladder_climbs_to_its_ceiling(rehearsal: Rehearsal) -> None:
    rehearsal.does("call", refuse)
    run = rehearsal.start(
        """
name: ladder
tasks:
  call:
    capability: call
    retry: {limit: 6, backoff: {initial: 1m, factor: 3, max: 20m, jitter: none}}
"""
    )
    assert rehearsal.finish(run).status == "failed"
    steps = [60, 180, 540, 1200, 1200, 1200]
    assert len(rehearsal.calls["call"]) == 7
    assert rehearsal.elapsed_s == pytest.approx(sum(steps), abs=NEAR)
    task = run.tasks.get()
    ended = list(task.attempts.order_by("id").values_list("ended_at", flat=True))
    gaps = [(b - a).total_seconds() for a, b in pairwise(ended)]
    assert gaps == [pytest.approx(step, abs=2) for step in steps]


def test_retries_end_at_their_deadline(rehearsal: Rehearsal) -> None:
    rehearsal.does("call", refuse)
    run = rehearsal.start(
        """
name: deadline
tasks:
  call:
    capability: call
    retry: {limit: 9, deadline: 10m, backoff: {initial: 4m, factor: 1, jitter: none}}
"""
    )
    assert rehearsal.finish(run).status == "failed"
    assert len(rehearsal.calls["call"]) == 3
    assert rehearsal.elapsed_s == pytest.approx(480, abs=NEAR)


def test_ten_tasks_at_two_a_minute_take_four_minutes(rehearsal: Rehearsal) -> None:
    rehearsal.does("ask", lambda task: task.inputs["n"])
    run = rehearsal.start(
        """
name: slowly
tasks:
  ask:
    for_each: [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]
    capability: ask
    rate_limit: {limit: 2, per: 1m}
    with: {n: "${{ item }}"}
"""
    )
    assert rehearsal.finish(run).status == "completed"
    assert rehearsal.result("ask") == list(range(10))
    assert 240 <= rehearsal.elapsed_s < 240 + NEAR
    items = run.tasks.filter(item_index__isnull=False, started_at__isnull=False)
    starts = list(items.order_by("started_at").values_list("started_at", flat=True))
    for first, third in zip(starts, starts[2:], strict=False):
        assert first
        assert third
        # What is limited is the moment of queueing; the first one may have been executed late.
        assert (third - first).total_seconds() > 60 - NEAR
    assert len(RateWindow.objects.get().starts) == 2


def test_repeat_delays_are_jumped_over(rehearsal: Rehearsal) -> None:
    rehearsal.does("poll", lambda task: {"ready": task.inputs["round"] == 13})
    run = rehearsal.start(
        """
name: poll
tasks:
  poll:
    capability: poll
    repeat: {until: result.ready, max: 20, delay: 1h}
    with: {round: "${{ iteration }}"}
"""
    )
    assert rehearsal.finish(run).status == "completed"
    assert rehearsal.elapsed_s == pytest.approx(12 * 3600, abs=NEAR)


def test_time_stops_at_each_due_moment_on_the_way(rehearsal: Rehearsal) -> None:
    run = rehearsal.start(
        """
name: two
tasks:
  short: {uses: wait, with: {duration: 2h}}
  then: {needs: short, uses: wait, with: {duration: 2h}}
  long: {uses: wait, with: {duration: 5h}}
"""
    )
    rehearsal.advance("3h59m")
    assert rehearsal.tasks(run) == {"short": "completed", "long": "waiting", "then": "waiting"}
    rehearsal.advance("2m")
    assert rehearsal.tasks(run)["then"] == "completed"
    assert rehearsal.finish(run).status == "completed"
    assert rehearsal.elapsed_s == pytest.approx(5 * 3600, abs=NEAR)


# ------------------------------------------------------------ time limits
LIMITED = """
name: limited
tasks:
  train:
    capability: train
    timeout: {queue: 1d, run: 10m, heartbeat: 2m}
    retry: {limit: 1, backoff: {initial: 1s, jitter: none}, on: [timeout]}
    catch: {result: "${{ error.type }}"}
"""


@pytest.mark.parametrize(
    ("takes", "result", "calls", "elapsed_s"),
    [("1m", "trained", 1, 60), ("9m", "heartbeat_timeout", 1, 120)],
)
def test_work_takes_virtual_time_and_may_be_too_long(
    rehearsal: Rehearsal, takes: str, result: str, calls: int, elapsed_s: float
) -> None:
    rehearsal.does("train", lambda task: "trained", takes=takes)
    run = rehearsal.finish(rehearsal.start(LIMITED))
    assert (run.status, rehearsal.result("train")) == ("completed", result)
    assert len(rehearsal.calls["train"]) == calls
    assert rehearsal.elapsed_s == pytest.approx(elapsed_s, abs=NEAR)


def test_attempt_that_is_too_long_is_retried(rehearsal: Rehearsal) -> None:
    done: list[str] = []
    rehearsal.does("train", lambda task: done.append("slow"), takes="11m")
    text = LIMITED.replace(", heartbeat: 2m", "")
    run = rehearsal.finish(rehearsal.start(text))
    assert (rehearsal.result("train", run), done) == ("timeout", [])
    assert len(rehearsal.calls["train"]) == 2
    assert rehearsal.elapsed_s == pytest.approx(2 * 600, abs=NEAR)
    assert stuck.find_stuck(0.0) == []


def test_task_that_nobody_does_waits_for_its_queue_timeout(rehearsal: Rehearsal) -> None:
    rehearsal.nobody_does("train")
    run = rehearsal.finish(
        rehearsal.start(
            LIMITED.replace("    catch", "    x-catch").replace(
                '    x-catch: {result: "${{ error.type }}"}\n', ""
            )
        )
    )
    assert run.error is not None
    assert (run.status, run.error["type"]) == ("failed", "queue_timeout")
    assert rehearsal.elapsed_s == pytest.approx(DAY, abs=NEAR)


# ------------------------------------------------------------ people and programs outside
RELEASE = """
name: release
tasks:
  build: {capability: build}
  cool: {needs: build, uses: wait, with: {duration: 1d}}
  release: {needs: cool, uses: approval, with: {message: Go?, expires: 2d, on_expiry: reject}}
  ship: {needs: release, capability: ship}
"""


@pytest.fixture
def shipping(rehearsal: Rehearsal) -> Rehearsal:
    rehearsal.does("build", lambda task: "built")
    rehearsal.does("ship", lambda task: "shipped")
    return rehearsal


def test_approval_expires(shipping: Rehearsal) -> None:
    run = shipping.finish(shipping.start(RELEASE))
    assert run.error is not None
    assert (run.status, run.error["type"]) == ("failed", "rejected")
    assert shipping.tasks()["ship"] == "skipped"
    assert shipping.elapsed_s == pytest.approx(3 * DAY, abs=NEAR)


@pytest.mark.parametrize("verdict", ["approve", "reject"])
def test_decision_comes_when_the_task_waits_for_it(shipping: Rehearsal, verdict: str) -> None:
    run = shipping.start(RELEASE)
    getattr(shipping, verdict)("release", by="ann", comment="as agreed")
    assert shipping.elapsed_s == pytest.approx(DAY, abs=NEAR)
    shipping.finish(run)
    assert shipping.tasks()["ship"] == ("completed" if verdict == "approve" else "skipped")
    assert ("by ann: as agreed" in str(run.error)) == (verdict == "reject")


def test_decision_that_nobody_asks_for_is_an_error(shipping: Rehearsal) -> None:
    shipping.start(RELEASE)
    with pytest.raises(RehearsalError, match=r"'relase'.*'release': 'failed'"):
        shipping.approve("relase")


def test_signal_ends_a_wait_and_a_late_one_finds_its_end(rehearsal: Rehearsal) -> None:
    text = "name: pay\ntasks:\n  paid: {uses: signal, with: {name: payment}, timeout: 7d}\n"
    run = rehearsal.start(text)
    rehearsal.advance("6d")
    rehearsal.signal("payment", {"amount": 7})
    assert rehearsal.finish(run).status == "completed"
    assert rehearsal.result("paid") == {"amount": 7}
    late = rehearsal.start(text)
    rehearsal.advance("8d")
    assert rehearsal.tasks(late) == {"paid": "failed"}


def test_run_that_waits_for_ever_is_given_back_as_it_is(rehearsal: Rehearsal) -> None:
    run = rehearsal.start("name: pay\ntasks:\n  paid: {uses: signal}\n")
    assert rehearsal.finish(run).status == "running"
    assert rehearsal.tasks() == {"paid": "waiting"}
    rehearsal.signal("paid", 1)
    assert rehearsal.finish().status == "completed"


def test_paused_run_stands_still(shipping: Rehearsal) -> None:
    run = shipping.start(RELEASE)
    control.pause_run(run.id)
    assert shipping.finish(run).status == "paused"
    assert shipping.elapsed_s < NEAR
    control.resume_run(run.id)
    shipping.approve("release")
    assert shipping.finish(run).status == "completed"


# ------------------------------------------------------------ runs inside runs
NESTED = """
name: nested
inputs: {type: object, properties: {repos: {type: array, items: {type: string}}}}
tasks:
  repo:
    for_each: ${{ inputs.repos }}
    max_parallel: 2
    with: {repo: "${{ item }}"}
    tasks:
      list: {capability: list, with: {repo: "${{ inputs.repo }}"}}
      settle: {needs: list, uses: wait, with: {duration: 1h}}
      file:
        needs: [list, settle]
        for_each: ${{ tasks.list.result }}
        capability: read
        with: {path: "${{ inputs.repo + '/' + item }}"}
    outputs: {texts: "${{ tasks.file.result }}"}
outputs: {all: "${{ tasks.repo.result.map(one, one.texts) }}"}
"""


def test_lists_in_lists(rehearsal: Rehearsal) -> None:
    rehearsal.does("list", lambda task: [f"{n}.txt" for n in range(len(task.inputs["repo"]))])
    rehearsal.does("read", lambda task: task.inputs["path"].upper())
    run = rehearsal.start(NESTED, {"repos": ["a", "bc", "d"]})
    assert rehearsal.finish(run).status == "completed"
    assert rehearsal.outputs() == {"all": [["A/0.TXT"], ["BC/0.TXT", "BC/1.TXT"], ["D/0.TXT"]]}
    assert rehearsal.elapsed_s == pytest.approx(2 * 3600, abs=NEAR)
    assert rehearsal.tasks(rehearsal.inside("repo[1]"))["file[1]"] == "completed"


def test_decision_in_a_sub_workflow(shipping: Rehearsal) -> None:
    shipping.upload(RELEASE)
    run = shipping.start("name: above\ntasks:\n  below: {uses: 'workflow:release'}\n")
    shipping.approve("release")
    assert shipping.finish(run).status == "completed"
    assert shipping.inside("below").workflow == "release"


# ------------------------------------------------------------ the test itself
ONE = "name: one\ntasks:\n  one: {capability: work, retry: 3}\n"


def test_capability_without_a_function_is_named(rehearsal: Rehearsal) -> None:
    run = rehearsal.start(ONE)
    with pytest.raises(RehearsalError, match="Nobody does 'work', which task 'one' needs"):
        rehearsal.finish(run)


def test_assertion_in_a_function_fails_the_test(rehearsal: Rehearsal) -> None:
    def check(context: Context) -> None:
        assert context.key == "two"

    rehearsal.does("work", check)
    with pytest.raises(AssertionError):
        rehearsal.finish(rehearsal.start(ONE))


def test_definition_comes_as_text_path_or_object(rehearsal: Rehearsal, tmp_path: Path) -> None:
    rehearsal.does("work", lambda task: 1)
    path = tmp_path / "one.yaml"
    path.write_text(ONE)
    json_text = '{"name": "one", "tasks": {"one": {"capability": "work"}}}'
    for definition in (ONE, path, str(path), parse(ONE), json_text):
        assert rehearsal.finish(rehearsal.start(definition)).status == "completed"
    with pytest.raises(InvalidError):
        rehearsal.start(ONE.replace("capability", "capabilty"))


def test_what_is_asked_too_early_or_wrongly_is_told(rehearsal: Rehearsal) -> None:
    with pytest.raises(RehearsalError, match="No run"):
        rehearsal.finish()
    assert rehearsal.elapsed_s == 0
    rehearsal.start(ONE)
    with pytest.raises(RehearsalError, match="no task 'two', only one"):
        rehearsal.result("two")
    with pytest.raises(RehearsalError, match="no run inside of 'one'"):
        rehearsal.inside("one")
