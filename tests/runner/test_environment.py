"""The commit that a result names is that of the code that ran."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from poolbench.runner import environment


@pytest.fixture(autouse=True)
def _forget_commit() -> Iterator[None]:
    environment.git_commit.cache_clear()
    yield
    environment.git_commit.cache_clear()


def _commit(folder: Path) -> str:
    """Make the folder a checkout with one commit; return its hash."""
    (folder / "poolbench" / "runner").mkdir(parents=True, exist_ok=True)
    (folder / environment.FILE).write_text(folder.name)
    for arguments in (
        ("init", "-q"),
        ("add", "-A"),
        ("-c", "user.name=a", "-c", "user.email=a@b.c", "commit", "-q", "-m", "a commit"),
    ):
        subprocess.run(["git", "-C", str(folder), *arguments], check=True)
    done = subprocess.run(["git", "-C", str(folder), "rev-parse", "HEAD"], check=True, capture_output=True, text=True)
    return done.stdout.strip()


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Pretend that the package lies in a virtual environment within somebody's checkout; give its direct_url.json."""
    _commit(tmp_path / "other project")
    (tmp_path / "other project" / "vendor").mkdir()
    file = tmp_path / "other project" / ".venv" / "environment.py"
    file.parent.mkdir()
    shutil.copy(environment.__file__, file)
    monkeypatch.setattr(environment, "__file__", str(file))
    monkeypatch.chdir(tmp_path / "other project")

    class Distribution:
        direct_url: str | None = None

        def locate_file(self, name: str) -> Path:
            assert name == environment.FILE
            return file

        def read_text(self, name: str) -> str | None:
            assert name == "direct_url.json"
            return self.direct_url

    distribution = Distribution()
    monkeypatch.setattr(environment, "distribution", lambda name: distribution)
    return distribution


def test_a_checkout_that_runs_names_its_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "checkout").mkdir()
    file = tmp_path / "checkout" / "environment.py"
    shutil.copy(environment.__file__, file)
    commit = _commit(tmp_path / "checkout")
    monkeypatch.setattr(environment, "__file__", str(file))
    assert environment.git_commit() == commit


def test_a_package_names_the_checkout_it_was_installed_from(tmp_path: Path, installed: Any) -> None:
    source = tmp_path / "a checkout #1"
    commit = _commit(source)
    installed.direct_url = json.dumps({"url": source.as_uri(), "dir_info": {}})
    assert environment.git_commit() == commit


def test_a_copy_in_the_checkout_of_another_project_has_no_commit(tmp_path: Path, installed: Any) -> None:
    source = tmp_path / "other project" / "vendor"
    installed.direct_url = json.dumps({"url": source.as_uri(), "dir_info": {}})
    assert environment.git_commit() == ""


def test_what_is_installed_beside_the_code_that_runs_does_not_count(
    tmp_path: Path, installed: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "a checkout"
    _commit(source)
    installed.direct_url = json.dumps({"url": source.as_uri(), "dir_info": {}})
    monkeypatch.setattr(environment, "__file__", str(tmp_path / "environment.py"))
    assert environment.git_commit() == ""


def test_a_package_installed_by_git_names_its_commit(installed: Any) -> None:
    commit = "0123456789abcdef0123456789abcdef01234567"
    installed.direct_url = json.dumps({"url": "ssh://a/b.git", "vcs_info": {"vcs": "git", "commit_id": commit}})
    assert environment.git_commit() == commit


@pytest.mark.parametrize(
    "direct_url",
    [
        None,
        '{"url": "file:///a/poolbench-0.1.0-py3-none-any.whl", "archive_info": {}}',
        '{"url": "file:///not/there", "dir_info": {}}',
    ],
)
def test_a_package_of_unknown_origin_names_no_commit_of_another_project(installed: Any, direct_url: str | None) -> None:
    installed.direct_url = direct_url
    assert environment.git_commit() == ""


def test_without_git_there_is_no_commit(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert environment.git_commit() == ""
