"""Measures the engine and the agents on embedded services: make bench.

Prints medians of five; the times of runs are the database's own (created_at to completed_at).
"""

from __future__ import annotations

from tests.bench.platform import platform


def main() -> None:
    """Start services and two agents, measure, stop everything."""
    with platform() as folder:
        from tests.bench.measures import measure

        measure(folder)


if __name__ == "__main__":
    main()
