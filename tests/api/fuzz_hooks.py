"""Hooks of schemathesis: generated requests meet what exists, and all answers are counted.

The test sets FUZZ_URL, FUZZ_KEY and FUZZ_COUNTS; schemathesis imports this file because
`fuzz.toml` names it.
"""

from __future__ import annotations

import atexit
import json
import os
import re
from collections import Counter, defaultdict
from functools import cache
from pathlib import Path
from typing import Any
from zlib import crc32

import httpx
import schemathesis
from schemathesis import Case, HookContext, Response
from schemathesis.core.parameters import ParameterLocation

from tests.api.fuzz_world import World

_WAIT = re.compile(r"[0-9.]+(s|m|ms)?")
_counts: dict[str, Counter[int]] = defaultdict(Counter)


@cache
def _world() -> World:
    headers = {"Authorization": f"Bearer {os.environ['FUZZ_KEY']}"}
    return World(httpx.Client(base_url=os.environ["FUZZ_URL"], headers=headers, timeout=20))


@schemathesis.hook
def before_call(context: HookContext, case: Case[Any], kwargs: dict[str, Any]) -> None:
    """Point most requests at things that exist, and half of the bodies too."""
    # Of the case alone, so that a failing one fails again when it is repeated.
    pick = crc32(repr(case).encode("utf-8", "surrogatepass"))
    if _is_valid(case, ParameterLocation.PATH) and pick % 5:
        known = _world().path_parameters(case.path, pick // 5)
        case.path_parameters = {
            name: known.get(name, old) for name, old in case.path_parameters.items()
        }
    if "Idempotency-Key" in case.headers and _is_valid(case, ParameterLocation.HEADER) and pick % 4:
        # Most generated keys are the same few, and a key is for one body.
        case.headers["Idempotency-Key"] = str(pick)
    if case.headers.get("If-Match") == "0" or _is_valid(case, ParameterLocation.HEADER):
        # "0" stands for a header of which the generator makes nothing, and is no tag.
        case.headers.update({"If-Match": "*"} if "If-Match" in case.headers else {})
    _shorten(case)
    if _is_valid(case, ParameterLocation.BODY) and isinstance(case.body, dict):
        if pick % 2:
            case.body = _world().body(case.operation.label, case.body, pick)
        if case.body.get("wait_s"):
            # Half a minute for each claim would be all of the test's time.
            case.body = {**case.body, "wait_s": 0.01}


def _shorten(case: Case[Any]) -> None:
    """Ask for whole objects, and for no wait."""
    query = case.query or {}
    # The document cannot say that only these fields are required then.
    query.pop("fields", None)
    if _WAIT.fullmatch(str(query.get("wait", ""))):
        query["wait"] = "0"


def _is_valid(case: Case[Any], location: ParameterLocation) -> bool:
    part = case.meta.components.get(location) if case.meta else None
    return part is not None and part.mode.is_positive


@schemathesis.hook
def after_call(context: HookContext, case: Case[Any], response: Response) -> None:
    """Count the answer; end a pause, in which nothing else would start."""
    if case.method.upper() == case.operation.method.upper():
        _counts[case.operation.label][response.status_code] += 1
    if case.operation.label == "POST /api/v1/pauses" and response.status_code == 201:
        _world().resume(response.json()["workflow"])


@atexit.register
def _write_counts() -> None:
    if "FUZZ_COUNTS" in os.environ:
        Path(os.environ["FUZZ_COUNTS"]).write_text(json.dumps(_counts))
