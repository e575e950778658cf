"""Measures the supervisor: starts, idle fleets, heartbeats: python -m tests.bench.agents [PART…].

Prints what the goals in docs/performance.md speak of, on services of its own. The parts are
heartbeats, one, probes, together, idle and balance; without any it measures all.
"""

from __future__ import annotations

import sys

from tests.bench.platform import platform


def main() -> None:
    """Start services and one supervisor, measure, stop everything."""
    with platform() as folder:
        from tests.bench.agents_measures import measure

        measure(folder, sys.argv[1:])


if __name__ == "__main__":
    main()
