"""Logins: how often they may fail, and where a request comes from."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.test import Client
from django.urls import reverse

from opscore import jobs, logins, origin
from opscore.config import load_config
from opscore.models import AuditEntry, LoginAttempt, Project

pytestmark = pytest.mark.django_db
PASSWORD = "wonderland"


@pytest.fixture
def alice(project: Project) -> User:
    return User.objects.create_superuser("alice", "alice@example.org", PASSWORD)


def login(name: str, password: str, address: str = "10.0.0.1") -> Any:
    told = {"username": name, "password": password}
    return Client(REMOTE_ADDR=address).post(reverse("admin:login"), told)


@pytest.mark.usefixtures("alice")
class TestLogins:
    def test_the_eleventh_failure_is_told_to_wait(self) -> None:
        for _ in range(10):
            assert login("alice", "wrong").status_code == 200
        answer = login("Alice", PASSWORD)
        assert answer.status_code == 429
        assert 800 < int(answer["Retry-After"]) <= 900
        assert login("alice", PASSWORD, "10.0.0.2").status_code == 302
        assert login("bob", "wrong").status_code == 200
        assert AuditEntry.objects.filter(action="login.throttled").exists()
        LoginAttempt.objects.update(at=LoginAttempt.objects.latest("at").at - timedelta(minutes=15))
        assert login("alice", PASSWORD).status_code == 302

    def test_a_success_forgets_the_failures_of_this_account(self) -> None:
        login("bob", "wrong")
        for _ in range(9):
            login("alice", "wrong")
        assert login("alice", PASSWORD).status_code == 302
        assert LoginAttempt.objects.count() == 1
        assert login("alice", "wrong").status_code == 200

    def test_an_address_that_tries_many_accounts_is_told_to_wait(self) -> None:
        for number in range(50):
            assert not logins.begin(f"user {number}", "10.0.0.1")
        assert login("alice", PASSWORD).status_code == 429
        assert login("alice", PASSWORD, "10.0.0.2").status_code == 302

    def test_addresses_behind_trusted_proxies_are_told_apart(
        self, monkeypatch: pytest.MonkeyPatch, rf: Any
    ) -> None:
        def seen(said: str, remote: str = "10.0.0.1") -> str | None:
            return origin.address_of(
                rf.get("/", headers={"X-Forwarded-For": said}, REMOTE_ADDR=remote)
            )

        assert seen("1.2.3.4") == "10.0.0.1"
        monkeypatch.setattr(load_config(), "trusted_proxies", "10.0.0.0/8")
        origin._proxies.cache_clear()
        assert seen("1.2.3.4") == "1.2.3.4"
        assert seen("6.6.6.6, 1.2.3.4, 10.0.0.9") == "1.2.3.4"
        assert seen("6.6.6.6, nonsense") == "10.0.0.1"
        assert seen("1.2.3.4", "8.8.8.8") == "8.8.8.8"
        assert seen("::ffff:1.2.3.4") == "1.2.3.4"
        assert seen("::1%aaaa") == "10.0.0.1"
        monkeypatch.undo()
        origin._proxies.cache_clear()

    @pytest.mark.parametrize("spelled", ["  {}", "{} ", "\uff41lice", "ALICE"])
    def test_another_spelling_is_the_same_account(self, spelled: str) -> None:
        for _ in range(10):
            login("alice", "wrong")
        assert login(spelled.format("alice"), PASSWORD).status_code == 429

    def test_a_network_of_one_customer_is_one_address(self) -> None:
        codes = [login("alice", "wrong", f"2001:db8::{n:x}").status_code for n in range(1, 12)]
        assert codes == [200] * 10 + [429]
        assert login("alice", PASSWORD, "2001:db8:0:1::1").status_code == 302

    def test_forms_of_other_pages_use_up_nothing(self) -> None:
        for _ in range(11):
            foreign = Client(enforce_csrf_checks=True)
            told = {"username": "alice", "password": "x"}
            assert foreign.post(reverse("admin:login"), told).status_code == 403
        assert login("alice", PASSWORD, "127.0.0.1").status_code == 302

    def test_an_account_attacked_from_everywhere_is_slow_and_not_locked(self) -> None:
        for number in range(100):
            assert not logins.begin("alice", f"10.0.{number}.1")
        answer = login("alice", PASSWORD)
        assert answer.status_code == 429
        assert int(answer["Retry-After"]) <= 5
        assert login("bob", "wrong").status_code == 200
        LoginAttempt.objects.update(at=LoginAttempt.objects.latest("at").at - timedelta(seconds=6))
        assert login("alice", PASSWORD).status_code == 302

    def test_old_attempts_are_removed(self) -> None:
        logins.begin("alice", None)
        LoginAttempt.objects.update(at=LoginAttempt.objects.latest("at").at - timedelta(hours=1))
        jobs.clean_up()
        assert not LoginAttempt.objects.exists()


@pytest.mark.django_db(transaction=True)
def test_many_logins_at_once_are_counted_too() -> None:
    def begun(_: int) -> bool:
        try:
            return not logins.begin("alice", "10.0.0.1")
        finally:
            connection.close()

    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(begun, range(30))) == 10
