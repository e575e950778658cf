"""`python -m opscore_sdk` is the `opscore` command."""

from __future__ import annotations

import sys

from opscore_sdk.cli import main

if __name__ == "__main__":
    sys.exit(main())
