"""Certifies a program in any language as an executor: `python -m opscore_sdk.conformance`."""

from opscore_sdk.conformance.rig import Broken, Rig, Wish
from opscore_sdk.conformance.rules import RULES, Verdict, certify

__all__ = ["RULES", "Broken", "Rig", "Verdict", "Wish", "certify"]
