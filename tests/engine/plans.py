"""What a statement costs, by its plan."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from opscore.database import query


def most_read(statement: str, params: dict[str, Any], table: str) -> float:
    """Run a statement; return how many rows of the table its largest scan has read."""
    query(f"ANALYZE {table}", {})
    [row] = query("EXPLAIN (ANALYZE, FORMAT JSON) " + statement, params)
    read: list[float] = [
        (node["Actual Rows"] + node.get("Rows Removed by Filter", 0)) * node["Actual Loops"]
        for node in _nodes(row["QUERY PLAN"][0]["Plan"])
        if node.get("Relation Name") == table and "Scan" in node["Node Type"]
    ]
    return max(read)


def _nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for below in plan.get("Plans", []):
        yield from _nodes(below)
