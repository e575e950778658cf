"""Has PostgreSQL look again at tables that grew: what it believes of them decides its plans.

A statement that was prepared while its table was almost empty goes on reading the whole table,
until somebody counts it again. Autovacuum does, but looks only once a minute: in the first one
of a new platform, 20,000 queued tasks kept half a core busy that 30 tasks a second worked beside.
"""

from __future__ import annotations

from psycopg import sql

from opscore.database import query
from opscore.logs import get_logger

log = get_logger(__name__)

# Doubled since the last look: so a table that grows to millions is read about ten times. What is
# smaller than the first number is read quickly in whatever way.
_GROWN = """
SELECT s.relname AS name, s.n_mod_since_analyze AS changed
  FROM pg_stat_user_tables s JOIN pg_class c ON c.oid = s.relid
 WHERE s.schemaname = current_schema() AND pg_has_role(c.relowner, 'USAGE')
   AND s.n_mod_since_analyze > 500 + greatest(c.reltuples, 0)
"""


def look_again() -> list[str]:
    """Have tables analyzed that doubled since that was done; return their names."""
    grown = query(_GROWN, {})
    for row in grown:
        # What somebody else analyzes or alters now is left to him.
        statement = sql.SQL("ANALYZE (SKIP_LOCKED) {}").format(sql.Identifier(row["name"]))
        query(statement.as_string(), {})
        log.debug("table.analyzed", table=row["name"], changed=row["changed"])
    return [row["name"] for row in grown]
