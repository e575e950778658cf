"""The forms in which values are masked, and what that costs."""

from __future__ import annotations

import base64
import random
import time
from collections.abc import Callable

import pytest

from opscore.redaction import MASK, Redactor

VALUE = "s3cr3t/token+value"


def test_forms_in_which_values_appear_are_masked() -> None:
    value = 'line of "one"\nshort\nanother line & more'
    redactor = Redactor([value, "pass word", "pass"])
    assert redactor.text("a pass word, pass%20word, pass+word") == f"a {MASK}, {MASK}, {MASK}"
    assert redactor.text('"line of \\"one\\"') == f'"{MASK}'
    assert redactor.text("it said short: another line & more") == f"it said short: {MASK}"
    assert redactor.data([1, None, True, {"pass": 2.5}]) == [1, None, True, {MASK: 2.5}]
    whole = {"a": ["as it was"]}
    assert Redactor().data(whole) is whole


@pytest.mark.parametrize("encode", [base64.b64encode, base64.urlsafe_b64encode])
@pytest.mark.parametrize("before", ["", "u", "us", "user:"])
@pytest.mark.parametrize("behind", ["", "x", "xy", '"}'])
def test_base64_of_something_longer_is_masked(
    encode: Callable[[bytes], bytes], before: str, behind: str
) -> None:
    whole = encode(f"{before}{VALUE}{behind}".encode()).decode()
    masked = Redactor([VALUE]).text(f"Basic {whole}")
    assert MASK in masked
    # At most the characters that hold a part of its neighbours are left.
    assert len(masked) - len(f"Basic {MASK}") <= 4 * ((len(before) + 3) // 3) + 8


@pytest.mark.parametrize(
    "form",
    [
        VALUE.encode().hex(),
        VALUE.encode().hex().upper(),
        "s3cr3t%2ftoken%2bvalue",
        "s3cr3t%2Ftoken%2Bvalue",
        r"s3cr3t\/token+value",
        base64.b64encode(VALUE.encode()).decode().rstrip("="),
    ],
)
def test_other_forms_are_masked_too(form: str) -> None:
    assert Redactor([VALUE]).text(f"<{form}>") == f"<{MASK}>"


def test_values_that_begin_alike_are_told_apart() -> None:
    redactor = Redactor(["password-one", "password-one-two", "password-three"])
    text = "password-one-two password-one! password-four password-threepassword-one"
    assert redactor.text(text) == f"{MASK} {MASK}! password-four {MASK}{MASK}"


def test_the_price_does_not_grow_with_the_number_of_values() -> None:
    draw = random.Random(1)
    words = ["".join(draw.choices("abcdef0123456789", k=16)) for _ in range(1900)]
    text = "".join(draw.choices("abcdef0123456789", k=300_000))

    def price(values: list[str]) -> float:
        redactor = Redactor(values)
        began = time.process_time()
        redactor.text(text)
        return time.process_time() - began

    # Measured: 8 times; looking for each at every place it was above 100.
    assert price(["\n".join(words)]) < 50 * price(words[:1])
