"""Measures how the database grows per 1,000 tasks: python -m tests.bench.growth.

Chains of ten tasks with small results, executed inside this process, on an embedded PostgreSQL.
"""

from __future__ import annotations

from tests.bench.platform import platform


def main() -> None:
    """Start services, measure, stop them."""
    with platform() as folder:
        from tests.bench.growth_measures import measure

        measure(folder / "archive")


if __name__ == "__main__":
    main()
