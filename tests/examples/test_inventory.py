from __future__ import annotations

from typing import Any

import pytest

from examples.repo_review.inventory import count_tests, inventory
from examples.repo_review.languages import is_foreign, is_source, is_test
from tests.examples.conftest import Workshop


def untested(found: dict[str, Any]) -> list[str]:
    return [row["path"] for row in found["untested"]]


def test_files_are_untested_when_no_test_names_or_imports_them(shop: Workshop) -> None:
    found = inventory(str(shop.root))
    assert untested(found) == ["shop/cart.py", "shop/plain.py", "shop/constants.py"]
    assert (found["test_files"], found["test_functions"]) == (1, 1)
    # The empty `__init__` needs no test.
    assert found["source_files"] == 4


@pytest.mark.parametrize(
    "line",
    [
        "from shop import cart",
        "from shop.cart import cart",
        "import shop.cart",
        "from ..shop import cart",
    ],
)
def test_every_form_of_import_counts(shop: Workshop, line: str) -> None:
    shop.write("tests/test_other.py", f"{line}\n")
    shop.commit()
    assert "shop/cart.py" not in untested(inventory(str(shop.root)))


def test_a_source_folder_is_on_the_import_path(workshop: Workshop) -> None:
    workshop.write("src/deep/thing.py", "x = 1\n")
    workshop.write("src/alone.py", "x = 1\n")
    workshop.write("tests/test_all.py", "import alone\nfrom deep.thing import x\n")
    workshop.commit()
    assert untested(inventory(str(workshop.root))) == []


def test_one_test_named_models_does_not_stand_for_every_models_file(workshop: Workshop) -> None:
    for app in ("agents", "orders"):
        workshop.write(f"{app}/models.py", "x = 1\n")
    workshop.write("tests/agents/test_models.py", "def test_x(): pass\n")
    workshop.commit()
    assert untested(inventory(str(workshop.root))) == ["orders/models.py"]


def test_javascript_go_and_rust_keep_their_conventions(workshop: Workshop) -> None:
    workshop.write("web/cart.ts", "export const x = 1\n")
    workshop.write("web/tax.ts", "export const x = 1\n")
    workshop.write("web/__tests__/all.ts", "import {x} from '../tax'\nit('works', () => {})\n")
    workshop.write("web/cart.spec.ts", "test('a', () => {})\ntest.each(x)('b', () => {})\n")
    workshop.write("pkg/queue.go", "package pkg\n")
    workshop.write("pkg/queue_test.go", "package pkg\nfunc TestQueue(t *testing.T) {}\n")
    workshop.write("core/lib.rs", "fn x() {}\n#[test]\nfn works() {}\n")
    workshop.commit()
    found = inventory(str(workshop.root))
    assert untested(found) == []
    assert found["test_functions"] == 3 + 1


def test_test_functions_are_counted_in_classes_and_async() -> None:
    content = b"class TestX:\n    def test_a(self): ...\n    async def test_b(self): ...\ndef helper(): ...\n"
    assert count_tests("tests/test_x.py", content) == 2
    assert count_tests("tests/test_x.py", b"def test_(:") == 0


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("app/views.py", "source"),
        ("django/test/client.py", "source"),
        ("tests/support.py", "test"),
        ("app/tests.py", "test"),
        ("src/test/java/FooHelper.java", "test"),
        ("web/cart.test.tsx", "test"),
        ("vendor/lib.py", "foreign"),
        ("web/dist/bundle.js", "foreign"),
        ("api/service_pb2.py", "foreign"),
        ("README.md", "other"),
        ("data.json", "other"),
    ],
)
def test_a_path_tells_what_a_file_is(path: str, kind: str) -> None:
    assert is_source(path) == (kind == "source")
    if kind in {"source", "test"}:
        assert is_test(path) == (kind == "test")
    if kind == "foreign":
        assert is_foreign(path)
