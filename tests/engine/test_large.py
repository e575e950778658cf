"""Large graphs and long lists: what they cost. tests.bench.large measures ten times as many."""

from __future__ import annotations

import time

import pytest

from opscore.models import Project
from tasks.graph import Graph
from tasks.submission import start_run
from tests.bench.large_measures import (
    MAX_PARALLEL,
    finish,
    large_graph,
    large_list,
    memory_mib,
    message_bytes,
)
from tests.engine.dags import chain, diamond
from tests.round_trips import round_trips

SIZE = 1_000


@pytest.mark.django_db(transaction=True)
def test_submit_takes_the_same_round_trips_at_any_size(project: Project) -> None:
    start_run(project, diamond(2), inputs={})
    trips = {}
    for size in (10, SIZE):
        began = time.monotonic()
        with round_trips() as sent:
            start_run(project, large_graph(size), inputs={})
        assert time.monotonic() - began < 3
        trips[size] = len(sent)
    # Which queues are served is asked once a second.
    assert trips[SIZE] <= trips[10] + 1 < 8


@pytest.mark.parametrize("size", [100, SIZE])
def test_messages_of_a_large_graph_stay_small(size: int) -> None:
    assert 500 < message_bytes(large_graph(size)) / size < 3_000


@pytest.mark.parametrize("graph", [chain(40), diamond(20), diamond(200)])
def test_messages_of_regular_graphs_stay_small(graph: Graph) -> None:
    assert 500 < message_bytes(graph) / len(graph.vertices) < 4_000


@pytest.mark.slow
@pytest.mark.django_db(transaction=True)
def test_large_graph_runs_to_its_end(project: Project) -> None:
    run = finish(project, start_run(project, large_graph(SIZE), inputs={}))
    assert run.status == "completed"
    assert run.tasks.filter(status="completed").count() == SIZE


@pytest.mark.slow
@pytest.mark.django_db(transaction=True)
def test_long_list_takes_little_memory(project: Project) -> None:
    before, _ = memory_mib()
    run = start_run(project, large_list(SIZE), inputs={})
    assert run.tasks.filter(status="queued").count() == MAX_PARALLEL
    run = finish(project, run)
    assert run.status == "completed"
    assert memory_mib()[0] - before < 100
    each = run.tasks.get(key="each")
    assert isinstance(each.result, list)
    assert [item["path"] for item in each.result] == [f"file-{n}" for n in range(SIZE)]
