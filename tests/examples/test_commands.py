"""The agents of kind `command`: started as the platform starts them, JSON in and JSON out."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from examples.repo_review.dependencies import dependencies
from examples.repo_review.lint import lint
from examples.repo_review.manifests import declared
from tests.examples.conftest import Workshop

ROOT = Path(__file__).resolve().parents[2]


def run(module: str, **inputs: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", f"examples.repo_review.{module}"],
        cwd=ROOT,
        input=json.dumps(inputs),
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_command_prints_json_and_logs_to_stderr(shop: Workshop) -> None:
    done = run("lint", root=str(shop.root))
    assert done.returncode == 0
    assert isinstance(json.loads(done.stdout), dict)
    assert done.stderr.strip()


def test_a_command_fails_with_one_sentence(tmp_path: Path) -> None:
    done = run("lint", root=str(tmp_path))
    assert done.returncode == 1
    assert done.stdout == ""
    assert "is not inside a git repository" in done.stderr
    assert "Traceback" not in done.stderr


def test_lint_counts_by_rule_and_file_and_puts_the_worst_first(workshop: Workshop) -> None:
    workshop.write("a.py", "import os\n\ndef f(x=[]):\n    return undefined_name\n")
    workshop.write("pkg/__init__.py", "from a import f\n")
    workshop.write("broken.py", "def f(:\n")
    workshop.write("fine.py", "x = 1\n")
    workshop.commit()
    workshop.write("untracked.py", "import os\n")
    found = lint(str(workshop.root))
    assert found["available"] is True
    assert found["files_checked"] == 4
    counts = {row["rule"]: (row["count"], row["fixable"]) for row in found["rules"]}
    assert counts["F401"] == (1, 1)
    assert counts["F821"] == (1, 0)
    assert {row["path"] for row in found["files"]} == {"a.py", "broken.py"}
    assert [(row["path"], row["rule"]) for row in found["serious"]] == [
        ("broken.py", "invalid-syntax"),
        ("a.py", "F821"),
        ("a.py", "B006"),
    ]


def test_lint_does_not_read_the_configuration_of_the_repository(workshop: Workshop) -> None:
    workshop.write("ruff.toml", 'lint.ignore = ["F401"]\nlint.select = []\n')
    workshop.write("a.py", "import os\n")
    workshop.commit()
    assert lint(str(workshop.root))["findings"] == 1
    assert not (workshop.root / ".ruff_cache").exists()


def test_lint_without_python_files_finds_nothing(workshop: Workshop) -> None:
    workshop.write("a.go", "package a\n")
    workshop.commit()
    found = lint(str(workshop.root))
    assert (found["files_checked"], found["findings"]) == (0, 0)


def test_dependencies_compare_manifests_with_imports(workshop: Workshop) -> None:
    workshop.write(
        "pyproject.toml",
        '[project]\nname = "x"\ndependencies = ["requests>=2", "PyYAML==6.0", "leftpad", "gunicorn"]\n'
        '[dependency-groups]\ndev = ["pytest"]\n',
    )
    workshop.write("app/__init__.py", "")
    workshop.write("app/a.py", "import os, yaml\nimport numpy as np\nfrom app import b\n")
    workshop.write("app/b.py", "import requests\nfrom . import a\n")
    workshop.write("tests/test_a.py", "import some_test_tool\n")
    workshop.commit()
    found = dependencies(str(workshop.root), print)
    assert found["undeclared"] == [{"package": "numpy", "files": 1, "example": "app/a.py"}]
    assert found["unused"] == ["leftpad"]
    python = found["ecosystems"][0]
    assert (python["declared"], python["runtime"], python["pinned"]) == (5, 4, 1)
    assert (python["floating"], python["locked"]) == (["gunicorn", "leftpad", "requests"], False)
    assert python["unbounded"] == ["gunicorn", "leftpad"]


def test_a_compiled_requirements_file_is_a_lock(workshop: Workshop) -> None:
    workshop.write("requirements.in", "django>=5\n")
    workshop.write("requirements.txt", "django==5.2 \\\n    --hash=sha256:00\nasgiref==3.8\n")
    workshop.write("app.py", "import django\n")
    workshop.commit()
    found = dependencies(str(workshop.root), print)
    assert found["manifests"] == ["requirements.in"]
    assert found["locks"] == ["requirements.txt"]
    assert found["ecosystems"][0]["declared"] == 1
    assert found["ecosystems"][0]["locked"] is True


def test_a_broken_manifest_is_reported_and_the_rest_is_read(workshop: Workshop) -> None:
    workshop.write("pyproject.toml", "[project\n")
    workshop.write("package.json", '{"dependencies": {"react": "^19.0.0", "exact": "1.2.3"}}')
    workshop.write("package-lock.json", "{}")
    workshop.commit()
    found = dependencies(str(workshop.root), print)
    assert [row["path"] for row in found["unreadable"]] == ["pyproject.toml"]
    javascript = found["ecosystems"][0]
    assert (javascript["name"], javascript["pinned"]) == ("JavaScript", 1)
    assert (javascript["floating"], javascript["locked"]) == (["react"], True)


@pytest.mark.parametrize(
    ("path", "text", "expected"),
    [
        (
            "requirements.txt",
            "# note\n-r other.txt\nDjango>=5,<6 # lts\n",
            [("Django", ">=5,<6", "")],
        ),
        ("requirements-dev.txt", "pytest ; python_version > '3'\n", [("pytest", "", "dev")]),
        (
            "pyproject.toml",
            '[tool.poetry.dependencies]\npython="^3"\na="1.0"\n',
            [("a", "==1.0", "")],
        ),
        (
            "setup.cfg",
            "[options]\ninstall_requires =\n  a>1\n  b\n",
            [("a", ">1", ""), ("b", "", "")],
        ),
        ("setup.py", "from x import setup\nsetup(install_requires=['a==1'])\n", [("a", "==1", "")]),
        (
            "Pipfile",
            '[packages]\na="*"\n[dev-packages]\nb="==1"\n',
            [("a", "", ""), ("b", "==1", "dev")],
        ),
        ("Cargo.toml", '[dependencies]\nserde = {version = "1"}\n', [("serde", "1", "")]),
        (
            "go.mod",
            "module x\nrequire (\n\texample.org/y v1.2.0\n)\n",
            [("example.org/y", "v1.2.0", "")],
        ),
    ],
)
def test_every_kind_of_manifest_is_read(
    path: str, text: str, expected: list[tuple[str, str, str]]
) -> None:
    assert [(d.name, d.wanted, d.group) for d in declared(path, text)] == expected


@pytest.mark.parametrize("text", ['["list"]', '{"dependencies": ["a"]}', "null"])
def test_a_manifest_of_an_unexpected_shape_is_one_kind_of_error(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - the reader says why in its own words
        declared("package.json", text)
