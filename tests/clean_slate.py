"""Brings the tests' database back to what the migrations left, touching only what a test changed.

Django's own way truncates every table after every test that commits. That makes hundreds of
files anew each time: a third of the time of such a test, where most write to a handful of tables.
"""

from __future__ import annotations

from typing import Any

from django.db import connection
from django.test import TransactionTestCase

#: Above this size a table is truncated: dead rows would slow down every later look at it.
_LARGE_BYTES = 4 << 20

#: The audit log refuses DELETE from anybody; what it lets the tests do is TRUNCATE.
_APPEND_ONLY = ("opscore_auditentry", "opscore_audithead")

_RESTORE = f"""
CREATE FUNCTION ground.restore() RETURNS text[] LANGUAGE plpgsql AS $$
DECLARE
    name text;
    changed boolean;
    emptied text[] := '{{}}';
BEGIN
    FOREACH name IN ARRAY %s::text[] LOOP
        EXECUTE format('SELECT EXISTS (SELECT FROM public.%%I)', name) INTO changed;
        CONTINUE WHEN NOT changed;
        IF name = ANY (%s) OR pg_relation_size(format('public.%%I', name)) > {_LARGE_BYTES} THEN
            EXECUTE format('TRUNCATE public.%%I CASCADE', name);
        ELSE
            EXECUTE format('DELETE FROM public.%%I', name);
            emptied := emptied || name;
        END IF;
    END LOOP;
    FOREACH name IN ARRAY %s::text[] LOOP
        EXECUTE format('SELECT EXISTS ((TABLE public.%%1$I EXCEPT TABLE ground.%%1$I)'
            ' UNION ALL (TABLE ground.%%1$I EXCEPT TABLE public.%%1$I))', name) INTO changed;
        CONTINUE WHEN NOT changed;
        EXECUTE format('DELETE FROM public.%%I', name);
        EXECUTE format('INSERT INTO public.%%1$I TABLE ground.%%1$I', name);
    END LOOP;
    RETURN emptied;
END $$
"""


def keep() -> None:
    """Remember every row that is there now, and have tests that commit come back to them."""
    with connection.cursor() as cursor:
        tables = set(connection.introspection.django_table_names(only_existing=True))
        cursor.execute("DROP SCHEMA IF EXISTS ground CASCADE")
        cursor.execute("CREATE SCHEMA ground")
        filled = []
        for table in sorted(tables):
            cursor.execute(f'SELECT EXISTS (SELECT FROM "{table}")')
            if cursor.fetchone()[0]:
                filled.append(table)
                cursor.execute(f'CREATE TABLE ground."{table}" AS TABLE public."{table}"')
        cursor.execute(_RESTORE, [sorted(tables - set(filled)), list(_APPEND_ONLY), filled])
    TransactionTestCase._fixture_teardown = _restore  # type: ignore[attr-defined]


def _restore(case: Any) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT ground.restore()")
        emptied = ", ".join(f'public."{name}"' for name in cursor.fetchone()[0])
        if emptied:
            # Their files become empty too: the next test's rows lie in the order it writes them.
            cursor.execute(f"VACUUM (SKIP_LOCKED) {emptied}")
