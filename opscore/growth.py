"""Has PostgreSQL look again at tables that grew: what it believes of them decides its plans.

A statement that was prepared while its table was almost empty goes on reading the whole table,
until somebody counts it again. Autovacuum does, but looks only once a minute: in the first one
of a new platform, 20,000 queued tasks kept half a core busy that 30 tasks a second worked beside.
"""

from __future__ import annotations

from psycopg import sql

from opscore.database import DatabaseError, query, release
from opscore.logs import get_logger

log = get_logger(__name__)

# As many changes as it has rows: so a sample of a table that grows to millions is read some dozen
# times. What is smaller than the first number is read quickly in whatever way.
_GROWN = """
SELECT s.relname AS name
  FROM pg_stat_user_tables s JOIN pg_class c ON c.oid = s.relid
 WHERE s.schemaname = current_schema() AND pg_get_userbyid(c.relowner) = current_user
   AND s.n_mod_since_analyze > 500 + greatest(c.reltuples, 0)
 ORDER BY s.n_mod_since_analyze DESC LIMIT 3
"""


def look_again() -> list[str]:
    """Have tables analyzed that changed as much as they are large; return their names."""
    return [row["name"] for row in query(_GROWN, {}) if _is_analyzed(row["name"])]


def _is_analyzed(name: str) -> bool:
    # What somebody else analyzes or alters now is left to him.
    statement = sql.SQL("ANALYZE (SKIP_LOCKED) {}").format(sql.Identifier(name))
    try:
        query(statement.as_string(), {})
    except DatabaseError as error:
        log.warning("table.not_analyzed", table=name, error=str(error).strip())
        release()
        return False
    return True
