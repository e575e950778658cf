"""Work in the background of a measurement: python -m tests.bench.load, until it is ended.

Where the platform is, `OPSCORE_API_URL` and `OPSCORE_API_KEY` say.
"""

from __future__ import annotations

import time

from opscore_sdk import Client

#: Tasks of 20 ms: so many, with a pause behind them.
CHUNK, PAUSE_S = 15, 0.5


def main() -> None:
    """Submit a few tasks now and then."""
    tasks = [{"capability": "part-1", "inputs": {"ms": 20}}] * CHUNK
    with Client() as client:
        while True:
            client.submit_many(tasks)
            time.sleep(PAUSE_S)


if __name__ == "__main__":
    main()
