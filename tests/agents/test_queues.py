from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from random import Random
from threading import Barrier

import pytest
from django.db import connection, transaction
from hypothesis import given
from hypothesis import strategies as st

from agents import queues
from agents.models import Queue
from agents.queues import MAX_NAME, ensure, ensure_all, matching, queue_name
from opscore.errors import InvalidError
from opscore.models import Project

WORDS = st.text(min_size=1, max_size=80)
LABELS = st.frozensets(WORDS, max_size=4)
QUEUES = st.tuples(st.from_regex(r"[a-zA-Z0-9_-]{1,40}", fullmatch=True), WORDS, LABELS)


@pytest.fixture(autouse=True)
def _forget() -> None:
    queues.forget()


def test_names_are_readable() -> None:
    assert queue_name("default", "code_review", ()) == "default.code_review"
    assert queue_name("default", "train", ["gpu", "cuda", "gpu"]) == "default.train+cuda.gpu"


@given(QUEUES, QUEUES)
def test_different_queues_have_different_names(
    one: tuple[str, str, frozenset[str]], other: tuple[str, str, frozenset[str]]
) -> None:
    assert (queue_name(*one) == queue_name(*other)) == (one == other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (("a", "b.c", ()), ("a", "b", ("c",))),
        (("a", "b", ("c.d",)), ("a", "b", ("c", "d"))),
        (("a", "b+c", ()), ("a", "b", ("c",))),
        (("a", "b~2e", ()), ("a", "b.", ())),
        (("a", "x" * 80, ("y" * 80, "z" * 80)), ("a", "x" * 80, ("y" * 80, "z" * 79))),
    ],
)
def test_separators_inside_words_do_not_confuse(
    one: tuple[str, str, tuple[str, ...]], other: tuple[str, str, tuple[str, ...]]
) -> None:
    assert queue_name(*one) != queue_name(*other)


@given(QUEUES)
def test_names_suit_every_broker(queue: tuple[str, str, frozenset[str]]) -> None:
    name = queue_name(*queue)
    assert re.fullmatch(r"[A-Za-z0-9_.+~-]+", name)
    assert len(name) <= MAX_NAME


def test_agent_serves_its_capabilities_and_every_queue_whose_labels_it_has(
    project: Project,
) -> None:
    wanted = [("train", labels) for labels in ([], ["gpu"], ["gpu", "eu"], ["tpu"])]
    names = ensure_all(project, wanted)
    assert names == ["default.train", "default.train+gpu", "default.train+eu.gpu", names[3]]
    ensure(project, "lint", ["gpu"])
    served = matching(project, ["train", "test"], ["eu", "gpu"])
    assert served == [
        "default.test",
        "default.train",
        "default.train+eu.gpu",
        "default.train+gpu",
    ]


def test_queue_is_written_once(project: Project) -> None:
    for _ in range(3):
        queues.forget()
        ensure(project, "lint", ["b", "a", "b"])
    row = Queue.objects.get()
    assert (row.name, row.capability, row.labels) == ("default.lint+a.b", "lint", ["a", "b"])


def test_queues_of_other_projects_are_not_served(project: Project) -> None:
    other = Project.objects.create(slug="other")
    ensure(other, "train", ["gpu"])
    assert matching(project, ["train"], ["gpu"]) == ["default.train"]


def test_queue_of_a_bare_capability_needs_no_row(project: Project) -> None:
    assert ensure(project, "lint") == "default.lint"
    assert not Queue.objects.exists()


def test_number_of_queues_is_bounded(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queues, "MAX_QUEUES", 3)
    ensure_all(project, [("train", [label]) for label in ("a", "b", "c")])
    with pytest.raises(InvalidError, match="more than 3 different pairs"):
        ensure_all(project, [("train", ["d"]), ("train", ["e"])])
    # Nothing of it was kept, and what exists can be used.
    assert Queue.objects.count() == 3
    queues.forget()
    assert ensure(project, "train", ["a"]) == "default.train+a"
    other = Project.objects.create(slug="other")
    assert ensure(other, "train", ["a"]) == "other.train+a"


def test_queue_of_a_transaction_that_was_rolled_back_is_written_the_next_time(
    project: Project,
) -> None:
    with transaction.atomic():
        ensure(project, "train", ["gpu"])
        transaction.set_rollback(True)
    ensure(project, "train", ["gpu"])
    assert Queue.objects.count() == 1


@pytest.mark.django_db(transaction=True)
def test_many_submitters_in_any_order_do_not_deadlock(project: Project) -> None:
    gate = Barrier(6)

    def submit(number: int) -> None:
        random = Random(number)
        try:
            for lot in range(3):
                words = [("train", [f"l{lot}-{place}"]) for place in range(300)]
                random.shuffle(words)
                gate.wait(20)
                queues.forget()
                ensure_all(project, words)
        finally:
            connection.close()

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(submit, range(6)))
    assert Queue.objects.count() == 900
