"""`python -m opscore_sdk.conformance -- COMMAND…`: a verdict for each rule, exit status 0 or 1."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from typing import Any

from opscore_sdk.conformance.rig import Wish
from opscore_sdk.conformance.rules import RULES, Verdict, certify


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns 0 when every rule is kept, 1 when one is broken, 2: wrong usage."""
    options = _parser().parse_args(arguments)
    wish = Wish(options.command, options.capability, options.inputs, options.seconds_input)
    broken = 0
    for verdict in certify(wish, options.rule):
        broken += bool(verdict.broken)
        _print(verdict, as_json=options.json)
    if not options.json:
        rules = "1 rule" if broken == 1 else f"{broken} rules"
        print(f"It breaks {rules}." if broken else "It keeps the protocol.")
    return 1 if broken else 0


def _print(verdict: Verdict, *, as_json: bool) -> None:
    rule = verdict.rule
    if as_json:
        said = {"rule": rule.name, "ok": not verdict.broken, "broken": verdict.broken}
        return print(json.dumps({**said, "output": verdict.output}), flush=True)
    mark = "FAIL" if verdict.broken else "ok"
    print(f"{mark:<5}{rule.name:<12} {rule.sentence}", flush=True)
    if verdict.broken:
        print(f"     {verdict.broken}", flush=True)
        for line in verdict.output.splitlines()[-5:]:
            print(f"     | {line}", flush=True)
    return None


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m opscore_sdk.conformance",
        description="Certify an executor: plays the platform for it and tries every rule of the "
        "protocol on a fresh process. It must register by itself, with OPSCORE_API_URL, "
        "OPSCORE_API_KEY and OPSCORE_AGENT_NAME.",
        epilog="exit status: 0 every rule is kept; 1 one is broken; 2 wrong usage",
    )
    parser.add_argument(
        "--capability", default="", help="what it is asked to do (default: its first)"
    )
    parser.add_argument(
        "--inputs", type=_object, default={"text": "hello"}, metavar="JSON", help="of a short task"
    )
    parser.add_argument(
        "--seconds-input",
        default="seconds",
        metavar="NAME",
        help="the input that says how many seconds a task takes (default: seconds)",
    )
    parser.add_argument(
        "--rule", action="append", default=[], choices=[rule.name for rule in RULES]
    )
    parser.add_argument("--json", action="store_true", help="a JSON object for each verdict")
    parser.add_argument("command", nargs="+", metavar="COMMAND", help="after --")
    return parser


def _object(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"not JSON: {error}") from None
    if not isinstance(value, dict):
        raise argparse.ArgumentTypeError("a JSON object is expected")
    return value


if __name__ == "__main__":
    sys.exit(main())
