"""How many requests a key may send."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from pydantic import ValidationError

from opscore import jobs
from opscore.api.rates import Buckets, buckets
from opscore.config import Config, Rate, load_config
from opscore.database import database_now
from opscore.models import RateBucket
from tests.api.conftest import Api
from tests.round_trips import round_trips

pytestmark = pytest.mark.django_db
HOURLY = Rate(3, 3600)


@pytest.fixture(autouse=True)
def _no_memory() -> None:
    buckets.forget()


@pytest.fixture
def limits(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    def set_limits(**said: str) -> None:
        for name, text in said.items():
            monkeypatch.setattr(load_config(), name, text)

    return set_limits


def test_a_key_above_its_limit_is_told_when_to_come_back(
    api: Api, make_api: Callable[..., Api], limits: Callable[..., None]
) -> None:
    limits(rate_limit="3/h")
    assert [api("GET", "/tasks").status_code for _ in range(3)] == [200] * 3
    answer = api("GET", "/tasks")
    assert answer.status_code == 429
    assert 1100 < int(answer["Retry-After"]) <= 1200
    body = answer.json()
    assert (body["code"], body["status"]) == ("throttled", 429)
    assert "3/h" in body["detail"]
    assert answer["Content-Type"] == "application/problem+json"
    assert make_api("read")("GET", "/tasks").status_code == 200
    assert api("GET", "/health").status_code == 200


def test_executors_have_a_limit_of_their_own(
    api: Api, session_id: str, make_api: Callable[..., Api], limits: Callable[..., None]
) -> None:
    limits(rate_limit="1/h")
    path = f"/sessions/{session_id}/heartbeat"
    agent = make_api("agent")
    assert [agent("POST", path, {}).status_code for _ in range(5)] == [200] * 5
    assert [api("POST", path, {}).status_code for _ in range(5)] == [200] * 5
    assert [api("GET", "/tasks").status_code for _ in range(2)] == [200, 429]
    limits(agent_rate_limit="2/h")
    assert [agent("POST", path, {}).status_code for _ in range(3)] == [200, 200, 429]


def test_a_bucket_fills_with_time_and_no_further_than_its_size(project: Any) -> None:
    shares = Buckets()
    assert [shares.take("a", HOURLY) > 0 for _ in range(4)] == [False] * 3 + [True]
    for hours, more in ((0.34, 1), (100, 3)):
        row = RateBucket.objects.get(subject="a")
        RateBucket.objects.update(filled_at=row.filled_at - timedelta(hours=hours))
        shares.forget()
        assert [shares.take("a", HOURLY) > 0 for _ in range(more + 1)] == [False] * more + [True]


def test_whoever_is_refused_asks_the_database_no_more(project: Any) -> None:
    shares = Buckets()
    while not shares.take("a", HOURLY):
        pass
    with round_trips() as asked:
        assert all(shares.take("a", HOURLY) > 0 for _ in range(10))
    assert asked == []


def test_many_requests_cost_few_statements(project: Any) -> None:
    shares = Buckets()
    with round_trips() as asked:
        assert not any(shares.take("a", Rate(6000, 60)) for _ in range(1000))
    # 1, 2, 4 … up to a twentieth of the limit; more where this test was held up for a second.
    assert len(asked) < 20
    assert RateBucket.objects.get(subject="a").granted <= 300


def test_two_processes_share_one_bucket(project: Any) -> None:
    one, other = Buckets(), Buckets()
    allowed = [not shares.take("a", Rate(10, 3600)) for _ in range(10) for shares in (one, other)]
    assert sum(allowed) == 10


@pytest.mark.django_db(transaction=True)
def test_no_race_gives_more_than_there_is() -> None:
    def spend(_: int) -> int:
        shares = Buckets()
        try:
            return sum(not shares.take("a", Rate(15, 3600)) for _ in range(20))
        finally:
            connection.close()

    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(spend, range(4))) == 15


def test_old_buckets_are_removed(project: Any) -> None:
    RateBucket.objects.create(
        subject="old", tokens=0, granted=0, filled_at=database_now() - timedelta(days=2)
    )
    Buckets().take("new", HOURLY)
    jobs.clean_up()
    assert [row.subject for row in RateBucket.objects.all()] == ["new"]


@pytest.mark.parametrize("text", ["6000", "0/min", "6000/week", "-1/s", "many/min", "1.5/s"])
def test_a_limit_that_makes_no_sense_is_refused(text: str) -> None:
    with pytest.raises(ValidationError, match="a rate is expected"):
        Config(rate_limit=text)
