"""The chain of the audit log: nobody changes it unnoticed."""

from __future__ import annotations

from datetime import timedelta
from io import StringIO
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import ProgrammingError, connection, transaction

from opscore.audit import chain, verdicts
from opscore.audit.record import Actor, note
from opscore.database import database_now, query
from opscore.errors import UnavailableError
from opscore.models import AuditEntry, AuditHead, Project

pytestmark = pytest.mark.django_db


@pytest.fixture
def five(project: Project) -> None:
    for number in range(5):
        note(f"deed {number}", Actor("alice", "user"), project=project, data={"π": [number, None]})
    assert chain.seal() == 5


def unguarded(sql: str, *values: Any) -> None:
    """Do what somebody does who owns the database."""
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
        cursor.execute("ALTER TABLE opscore_auditentry DISABLE TRIGGER opscore_guard_audit")
        cursor.execute(sql, values)
        cursor.execute("ALTER TABLE opscore_auditentry ENABLE TRIGGER opscore_guard_audit")


@pytest.mark.usefixtures("five")
class TestChain:
    def test_a_sealed_log_is_whole_and_new_rows_join_it(self, project: Project) -> None:
        note("deed 5", Actor("alice", "user"), project=project)
        verdict = chain.verify()
        assert verdict.ok
        assert (verdict.checked, verdict.first, verdict.last) == (6, 1, 6)
        assert chain.verify((verdict.last or 0, verdict.head)).ok
        assert chain.seal() == 0

    @pytest.mark.parametrize(
        ("sql", "broken", "problem"),
        [
            ("UPDATE opscore_auditentry SET actor = 'bob' WHERE number = 3", 3, "changed"),
            ("UPDATE opscore_auditentry SET data = '{}' WHERE number = 1", 1, "changed"),
            (
                "UPDATE opscore_auditentry SET at = at + interval '1 s' WHERE number = 5",
                5,
                "changed",
            ),
            ("DELETE FROM opscore_auditentry WHERE number = 3", 3, "missing"),
            ("DELETE FROM opscore_auditentry WHERE number < 3", 3, "retention"),
            ("UPDATE opscore_auditentry SET hash = repeat('a', 64) WHERE number = 2", 2, "changed"),
        ],
    )
    def test_the_first_broken_link_is_named(self, sql: str, broken: int, problem: str) -> None:
        unguarded(sql)
        verdict = chain.verify()
        assert not verdict.ok
        assert verdict.broken == broken
        assert problem in verdict.problem
        with pytest.raises(CommandError, match=f"Row {broken} is broken"):
            call_command("auditlog", "verify", stdout=StringIO())

    def test_a_row_put_in_between_is_found(self) -> None:
        unguarded("UPDATE opscore_auditentry SET number = number + 1 WHERE number = 5")
        assert chain.verify().broken == 5

    def test_what_was_cut_off_at_the_end_is_missed(
        self, project: Project, caplog: pytest.LogCaptureFixture
    ) -> None:
        query("SELECT set_config('opscore.audit_trim', 'on', true)", {})
        query("DELETE FROM opscore_auditentry WHERE number > 3", {})
        verdict = chain.verify()
        assert (verdict.ok, verdict.broken) == (False, 4)
        assert "cut or made anew" not in caplog.text
        note("deed 5", Actor("alice", "user"), project=project)
        verdict = chain.verify()
        assert (verdict.ok, verdict.broken) == (False, 4)
        assert AuditEntry.objects.filter(number=6).exists()
        assert "cut or made anew" in caplog.text

    def test_a_log_that_was_emptied_is_missed(self, project: Project) -> None:
        query("SET CONSTRAINTS ALL IMMEDIATE", {})
        query("SELECT set_config('opscore.audit_truncate', 'off', true)", {})
        for table in ("opscore_auditentry", "opscore_audithead"):
            with pytest.raises(ProgrammingError, match="append-only"), transaction.atomic():
                query(f"TRUNCATE {table}", {})
        query("SELECT set_config('opscore.audit_truncate', 'on', true)", {})
        query("TRUNCATE opscore_auditentry", {})
        assert not chain.verify().ok
        note("deed 5", Actor("alice", "user"), project=project)
        assert chain.verify().problem == "the rows before it were not removed by retention"

    def test_what_somebody_cuts_off_with_its_head_needs_one_from_elsewhere(self) -> None:
        head = chain.verify()
        unguarded("DELETE FROM opscore_auditentry WHERE number > 3")
        AuditHead.objects.all().delete()
        assert chain.verify().ok
        verdict = chain.verify((head.last or 0, head.head))
        assert (verdict.ok, verdict.broken) == (False, 4)
        with pytest.raises(CommandError, match="at the end are missing"):
            call_command("auditlog", "verify", "--expect", f"{head.last}:{head.head}")

    def test_a_chain_made_anew_is_not_the_one_expected(self) -> None:
        head = chain.verify()
        unguarded("UPDATE opscore_auditentry SET actor = 'bob', number = NULL")
        AuditHead.objects.all().delete()
        assert chain.verify().ok
        assert chain.verify((head.last or 0, head.head)).broken == 5

    @pytest.mark.parametrize(
        "sql",
        [
            "UPDATE opscore_auditentry SET actor = 'bob' WHERE number = 3",
            "UPDATE opscore_auditentry SET number = NULL WHERE number = 3",
            "DELETE FROM opscore_auditentry WHERE number = 3",
            "INSERT INTO opscore_auditentry (number, actor, actor_kind, key, request_id, action,"
            " target, data, previous, hash) VALUES (6, '', '', '', '', '', '', '{}', '', '')",
        ],
    )
    def test_the_database_refuses_changes(self, sql: str) -> None:
        with pytest.raises(ProgrammingError, match="append-only"), transaction.atomic():
            query(sql, {})

    def test_a_row_that_is_not_sealed_yet_cannot_change_either(self, project: Project) -> None:
        note("deed", Actor())
        for change in ({"actor": "bob"}, {"actor": "bob", "number": 6}):
            with pytest.raises(ProgrammingError, match="append-only"), transaction.atomic():
                AuditEntry.objects.filter(number=None).update(**change)
        with pytest.raises(ProgrammingError, match="append-only"), transaction.atomic():
            AuditEntry.objects.filter(number=None).delete()

    def test_retention_removes_the_old_end_and_leaves_an_anchor(self, project: Project) -> None:
        unguarded(
            "UPDATE opscore_auditentry SET at = at - interval '9 days', number = NULL WHERE number < 4"
        )
        unguarded("UPDATE opscore_auditentry SET number = NULL")
        AuditHead.objects.all().delete()
        chain.seal()
        assert chain.trim(database_now() - timedelta(days=1)) == 3
        verdict = chain.verify()
        assert verdict.ok, verdict
        assert (verdict.first, verdict.last, verdict.checked) == (4, 6, 3)
        assert chain.trim(database_now() - timedelta(days=1)) == 0
        assert chain.trim(database_now() + timedelta(days=1)) == 3
        assert chain.verify().ok
        with pytest.raises(ProgrammingError, match="append-only"), transaction.atomic():
            AuditEntry.objects.all().delete()

    def test_the_command_verifies_shows_and_trims(self) -> None:
        out = StringIO()
        call_command("auditlog", "verify", stdout=out)
        assert "5 rows, 1 to 5: whole." in out.getvalue()
        call_command("auditlog", "show", stdout=out)
        assert "deed 4" in out.getvalue()
        call_command("auditlog", "seal", stdout=out)
        call_command("auditlog", "trim", "--days", "1", stdout=out)
        assert "0 rows removed." in out.getvalue()
        with pytest.raises(CommandError, match="NUMBER:HASH"):
            call_command("auditlog", "verify", "--expect", "x")


@pytest.mark.django_db(transaction=True)
def test_two_sealers_at_once_make_one_chain(project: Project) -> None:
    from concurrent.futures import ThreadPoolExecutor

    for number in range(200):
        note(f"deed {number}", Actor("alice", "user"), project=project)

    def seal(_: int) -> int:
        try:
            return chain.seal()
        finally:
            connection.close()

    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(seal, range(4))) == 200
    verdict = chain.verify()
    assert verdict.ok
    assert verdict.checked == 200


@pytest.mark.django_db(transaction=True)
def test_a_walk_sees_one_moment_while_retention_cuts(project: Project) -> None:
    from concurrent.futures import ThreadPoolExecutor

    for number in range(3000):
        note(f"deed {number}", Actor("alice", "user"), project=project)
    chain.seal()

    def trim() -> int:
        try:
            return chain.trim(database_now() + timedelta(days=1))
        finally:
            connection.close()

    rows = chain._sealed_rows()
    seen = [next(rows)["number"]]
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(trim).result() == 3000
    seen += [row["number"] for row in rows]
    assert seen == list(range(1, 3001))
    assert chain.verify().ok


def test_verdicts_are_kept_and_made_one_at_a_time(five: None) -> None:
    verdicts.forget()
    first = verdicts.latest()
    assert first.verdict.checked == 5
    note("deed 5", Actor())
    assert verdicts.latest() is first
    verdicts.forget()
    with verdicts._lock, pytest.raises(UnavailableError, match="ask again"):
        verdicts.latest()
    assert verdicts.latest().verdict.checked == 6
    verdicts.forget()
