"""Measures the supervisor: starts, idle fleets, heartbeats: python -m tests.bench.agents.

Prints what the goals in docs/performance.md speak of, on services of its own.
"""

from __future__ import annotations

from tests.bench.platform import platform


def main() -> None:
    """Start services and one supervisor, measure, stop everything."""
    with platform() as folder:
        from tests.bench.agents_measures import measure

        measure(folder)


if __name__ == "__main__":
    main()
