"""Measures graphs of 10,000 tasks and lists of 10,000 items: python -m tests.bench.large.

Everything runs inside this process, on embedded services.
"""

from __future__ import annotations

from tests.bench.platform import platform


def main() -> None:
    """Start services, measure, stop them."""
    with platform():
        from tests.bench.large_measures import measure

        measure()


if __name__ == "__main__":
    main()
