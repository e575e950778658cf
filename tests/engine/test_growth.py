"""Tables that grew are analyzed: plans that were made while they were small are given up."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from opscore import growth
from opscore.database import query

pytestmark = pytest.mark.django_db(transaction=True)

MANY = 5000
FIND = "SELECT text FROM growing WHERE id = %(id)s"


@pytest.fixture
def growing() -> Iterator[None]:
    """A table whose lookup was prepared while it had three rows."""
    query("CREATE TABLE growing (id int PRIMARY KEY, text text)", {})
    try:
        fill(1, 3)
        query("ANALYZE growing", {})
        for id_ in (1, 2, 3) * 4:
            query(FIND, {"id": id_})
        yield
    finally:
        query("DROP TABLE growing", {})


def fill(first: int, last: int) -> None:
    rows = "SELECT n, 'x' FROM generate_series(%(first)s::int, %(last)s::int) n"
    query(f"INSERT INTO growing {rows}", {"first": first, "last": last})
    query("SELECT pg_stat_force_next_flush()", {})


def rows_read_for_one() -> int:
    """Return how many rows a lookup passed over to find its own."""
    before = rows_passed()
    assert query(FIND, {"id": MANY}) == [{"text": "x"}]
    return rows_passed() - before


def rows_passed() -> int:
    query("SELECT pg_stat_force_next_flush()", {})
    seen = "SELECT seq_tup_read AS n FROM pg_stat_user_tables WHERE relname = 'growing'"
    return int(query(seen, {})[0]["n"])


def test_plans_of_a_table_that_grew_are_made_anew(growing: None) -> None:
    fill(4, MANY)
    assert rows_read_for_one() == MANY, "else this test shows nothing"
    assert "growing" in growth.look_again()
    assert rows_read_for_one() == 0


def test_a_table_is_looked_at_once_for_each_time_that_it_doubles(growing: None) -> None:
    fill(4, 400)
    assert "growing" not in growth.look_again()
    fill(401, MANY)
    assert "growing" in growth.look_again()
    fill(MANY + 1, 2 * MANY - 100)
    assert "growing" not in growth.look_again()
    fill(2 * MANY, 3 * MANY)
    assert "growing" in growth.look_again()
