"""Statements that go to the database together."""

from __future__ import annotations

import pytest
from django.db import DatabaseError, connection, transaction

from opscore.database import query, run_together
from opscore.models import Project
from tasks.models import Run
from tests.engine.conftest import Bench
from tests.engine.flows import begin, node

pytestmark = pytest.mark.django_db(transaction=True)

#: Fails where `n` is 0.
FIRST = "SELECT 1 / %(n)s::int"
SECOND = "UPDATE opscore_project SET slug = slug || %(text)s WHERE slug LIKE 'way%%'"


def go(n: int) -> None:
    run_together((FIRST, {"n": n}), (SECOND, {"text": "!"}))


def slug() -> str:
    return str(Project.objects.get(slug__startswith="way").slug)


@pytest.fixture
def way(project: Project) -> None:
    Project.objects.create(slug="way")


@pytest.mark.parametrize("before", range(5))
def test_what_fails_leaves_nothing_and_spoils_nothing(way: None, before: int) -> None:
    # At each number of uses: statements are prepared at the third one.
    for _ in range(before):
        go(1)
    with pytest.raises(DatabaseError):
        go(0)
    assert slug() == "way" + "!" * before
    go(1)
    go(1)
    assert slug() == "way" + "!" * (before + 2)
    assert query("SELECT 1 AS one", {}) == [{"one": 1}]


def test_it_is_one_transaction_of_its_own(way: None) -> None:
    mark = "SELECT set_config('opscore.mark', %(text)s, true)"
    use = (
        "UPDATE opscore_project SET slug = 'way' || current_setting('opscore.mark') "
        "WHERE slug LIKE 'way%%' AND %(yes)s"
    )
    run_together((mark, {"text": "-a"}), (use, {"yes": True}))
    assert slug() == "way-a"
    with connection.cursor() as cursor:
        cursor.execute("SELECT current_setting('opscore.mark', true)")
        assert cursor.fetchone()[0] in {"", None}
    with transaction.atomic(), pytest.raises(RuntimeError, match="durable"):
        go(1)


def test_a_submit_that_fails_spoils_no_open_transaction(bench: Bench) -> None:
    with transaction.atomic():
        with pytest.raises(DatabaseError):
            begin(bench, node("a", inputs={"n": "\\u0000"}, capability="x" * 1000))
        assert not Run.objects.exists()
        begin(bench, node("b"))
    assert Run.objects.count() == 1
