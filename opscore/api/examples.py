"""Puts an example into the API document for each kind of answer.

The examples are real answers, in `examples.json` beside this file: `tests/api/test_examples.py`
records them, and fails when one has other fields than the answer has now.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

FILE = Path(__file__).with_name("examples.json")


def show_examples(result: dict[str, Any], **_: Any) -> dict[str, Any]:
    """Add the recorded answers to the document's components (a hook of drf-spectacular)."""
    components = result["components"]["schemas"]
    for name, answer in json.loads(FILE.read_text()).items():
        if name in components:
            components[name]["examples"] = [answer]
    return result
