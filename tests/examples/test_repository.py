from __future__ import annotations

import os
from pathlib import Path

import pytest

from examples.repo_review.repository import Repository, RepositoryError, Skipped
from examples.repo_review.scan import scan
from tests.examples.conftest import Workshop


def test_a_folder_without_repository_is_refused_with_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(RepositoryError, match="is not inside a git repository"):
        scan(str(tmp_path))


def test_a_path_that_does_not_exist_is_refused_with_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(RepositoryError, match="is not a folder"):
        scan(str(tmp_path / "nowhere"))


def test_a_bare_repository_is_refused_with_a_sentence(workshop: Workshop) -> None:
    workshop.commit()
    bare = workshop.clone("bare", "--bare")
    with pytest.raises(RepositoryError, match="bare repository"):
        scan(str(bare.root))


def test_a_path_inside_of_a_repository_means_the_whole_of_it(shop: Workshop) -> None:
    assert scan(str(shop.root / "shop"))["root"] == str(shop.root)


def test_a_repository_without_commits_is_reviewed_as_it_lies(workshop: Workshop) -> None:
    workshop.write("a.py", "x = 1\n")
    workshop.write("ignored.py", "x = 1\n")
    workshop.write(".gitignore", "ignored.py\n")
    found = scan(str(workshop.root))
    assert found["head"] == ""
    assert found["files"] == 2
    assert found["languages"] == {"Python": 1}


def test_a_detached_head_is_named_by_its_commit(shop: Workshop) -> None:
    head = shop.git("rev-parse", "HEAD~2")
    shop.git("checkout", "--quiet", head)
    found = scan(str(shop.root))
    assert (found["head"], found["branch"]) == (head, "")


def test_odd_file_names_are_listed_and_can_be_read(workshop: Workshop) -> None:
    names = [
        b"new\nline.py",
        b"tab\tname.py",
        b'quo"te.py',
        "Ü ñ.py".encode(),
        b"latin-\xe9.py",
    ]
    names += [b"back\\xe9slash.py", b"-dash.py"]
    for name in names:
        workshop.write(name, b"x = 1 # " + name.replace(b"\n", b"") + b"\n")
    workshop.commit()
    repository = Repository.open(str(workshop.root))
    listed = repository.files()
    assert len(listed) == len(names)
    assert "latin-\\xe9.py" in listed
    for shown in listed:
        assert isinstance(repository.read(shown), bytes), shown
        shown.encode()  # no lone surrogate that JSON or a database would refuse


def test_links_binaries_large_and_missing_files_are_left_out(workshop: Workshop) -> None:
    workshop.write("binary.py", b"\0\1\2")
    workshop.write("large.py", "x = 1\n" * 200_000)
    workshop.write("gone.py", "x = 1\n")
    os.symlink("/etc/passwd", workshop.root / "link.py")
    workshop.commit()
    (workshop.root / "gone.py").unlink()
    repository = Repository.open(str(workshop.root))
    assert "link.py" not in repository.files()
    assert repository.read("link.py") == Skipped("link")
    assert repository.read("binary.py") == Skipped("binary")
    assert repository.read("large.py") == Skipped("larger than 1 MB")
    assert repository.read("gone.py") == Skipped("missing")


def test_a_repository_cannot_make_the_review_run_its_programs(
    shop: Workshop, tmp_path: Path
) -> None:
    trap = tmp_path / "sprung"
    script = tmp_path / "trap.sh"
    script.write_text(f"#!/bin/sh\ntouch {trap}\n")
    script.chmod(0o755)
    shop.write(".gitattributes", "*.py diff=x\n")
    shop.commit()
    for key in ("core.fsmonitor", "core.pager", "diff.external", "gpg.program", "diff.x.textconv"):
        shop.git("config", key, str(script))
    shop.git("config", "log.showSignature", "true")
    from examples.repo_review.history import mine

    found = scan(str(shop.root))
    assert mine(found["root"], found["head"])["commits"] == 8
    assert not trap.exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_a_repository_of_another_user_is_read(shop: Workshop) -> None:
    for folder, _, files in os.walk(shop.root):
        for path in (folder, *(os.path.join(folder, name) for name in files)):
            os.chown(path, 65534, 65534)
    assert scan(str(shop.root))["head"] == shop.git("-c", "safe.directory=*", "rev-parse", "HEAD")


def test_the_environment_of_a_git_hook_does_not_lead_elsewhere(
    shop: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "other"))
    assert scan(str(shop.root))["root"] == str(shop.root)
