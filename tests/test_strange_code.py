"""No file runs as code but what the user named: planted modules, pickles and object arrays leave no trace."""

from __future__ import annotations

import ast
import io
import json
import os
import pickle
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("poolbench", "poolbench_tasks", "poolbench_tracking")
PLANTED = (
    "mlflow", "poolbench_tasks", "poolbench_tracking", "sitecustomize", "usercustomize", "strange_plugin", "torch",
    "numpy", "random", "struct", "multiprocessing", "uvicorn", "encodings", "yaml", "ray", "psutil",
)  # fmt: skip


def calls() -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Yield (file and line, called name, keywords) of every call in the packages."""
    for package in PACKAGES:
        spec = find_spec(package)
        assert spec is not None
        for folder in spec.submodule_search_locations or ():
            for path in Path(folder).rglob("*.py"):
                for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                    if isinstance(node, ast.Call):
                        keywords = {
                            str(k.arg): k.value.value for k in node.keywords if isinstance(k.value, ast.Constant)
                        }
                        yield f"{path}:{node.lineno}", ast.unparse(node.func), keywords


def offences(found: Iterator[tuple[str, str, dict[str, Any]]]) -> list[str]:
    """Return the calls that read objects, run text, or start a shell."""
    bad = []
    for place, name, keywords in found:
        last = name.rpartition(".")[2]
        if name == "torch.load" and keywords.get("weights_only") is not True:
            bad.append(f"{place}: {name} without weights_only=True")
        if last == "load" and name.partition(".")[0] in ("pickle", "dill", "cloudpickle", "joblib", "yaml", "marshal"):
            bad.append(f"{place}: {name}")
        if last in ("loads", "read_pickle", "Unpickler", "unsafe_load", "full_load") and not name.startswith("json."):
            bad.append(f"{place}: {name}")
        if name in ("eval", "exec", "compile", "os.system", "os.popen", "builtins.eval", "builtins.exec"):
            bad.append(f"{place}: {name}")
        if keywords.get("allow_pickle") is True or keywords.get("shell") is True:
            bad.append(f"{place}: {name} with allow_pickle or shell")
        if last == "read_parquet" and keywords.get("engine") != "pyarrow":
            bad.append(f"{place}: {name} without engine='pyarrow'")
    return bad


def test_no_call_runs_what_a_file_holds() -> None:
    assert offences(calls()) == []


@pytest.mark.parametrize(
    "text",
    ["torch.load(f)", "torch.load(f, weights_only=False)", "np.load(f, allow_pickle=True)", "pickle.load(f)", "eval(x)",
     "yaml.load(f)", "exec(x)", "subprocess.run(x, shell=True)", "pickle.loads(x)", "pd.read_parquet(f)"],
)  # fmt: skip
def test_such_calls_are_noticed(text: str) -> None:
    (node,) = (node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Call))
    keywords = {str(k.arg): k.value.value for k in node.keywords if isinstance(k.value, ast.Constant)}
    assert offences(iter([("x.py:1", ast.unparse(node.func), keywords)]))


class Code:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, marker: str) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return os.mkdir, (self.marker,)


Installed = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def installed(tmp_path: Path) -> Installed:
    """Run the command as an installed one: the folder of the script is on Python's path, the current folder is not."""
    (tmp_path / "bin").mkdir()
    script = tmp_path / "bin" / "poolbench"
    script.write_text("from poolbench.cli import main\nif __name__ == '__main__':\n    main(prog_name='poolbench')\n")
    (tmp_path / "place").mkdir()

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, str(script), *arguments]
        return subprocess.run(command, cwd=tmp_path / "place", capture_output=True, text=True, check=False, timeout=300)

    return run


def plant(folder: Path, marker: Path) -> None:
    for name in PLANTED:
        (folder / f"{name}.py").write_text(f"import os\nos.makedirs({str(marker / name)!r}, exist_ok=True)\n")


@pytest.mark.slow
@pytest.mark.ray
def test_planted_code_does_not_run_on_ray(installed: Installed, tmp_path: Path) -> None:
    pytest.importorskip("ray")
    place, marker = tmp_path / "place", tmp_path / "marker"
    plant(place, marker)
    (place / "poolbench.py").write_text(f"import os\nos.makedirs({str(marker / 'poolbench')!r}, exist_ok=True)\n")
    selection = ["--preset", "smoke", "--head", "avg", "--where", "variant=corrected", "--seeds", "0"]
    done = installed("run", "global_pooling", *selection, "--device", "cpu", "--no-mlflow", "--executor", "ray")
    assert not marker.exists(), list(marker.iterdir())
    assert done.returncode == 0, done.stderr
    assert "1 finished" in done.stderr


def test_planted_code_does_not_run(installed: Installed, tmp_path: Path) -> None:
    """A run with workers, then all that reads its folder, where modules with well-known names lie."""
    place, marker = tmp_path / "place", tmp_path / "marker"
    run = ["run", "global_pooling", "--preset", "smoke", "--head", "avg", "--where", "variant=corrected"]
    run += ["--device", "cpu", "--seeds", "0-1", "--jobs", "2", "--no-mlflow"]
    plant(place, marker)
    done = installed(*run)
    assert done.returncode == 0, done.stderr
    assert not marker.exists(), list(marker.iterdir())
    folders = sorted((place / "poolbench-out" / "cells").iterdir())
    assert len(folders) == 2
    plant(place / "poolbench-out", marker)
    pickled = pickle.dumps(Code(str(marker / "pickle")))
    for name in ("weights.pt", "checkpoint.pt"):
        (folders[0] / name).write_bytes(pickled)
    array = np.empty(1, dtype=object)
    array[0] = Code(str(marker / "array"))
    content = io.BytesIO()
    np.savez(content, map=array)
    (folders[0] / "arrays.npz").write_bytes(content.getvalue())
    for path in (*folders[0].glob("*.parquet"), folders[0] / "answers.parquet"):
        path.write_bytes(pickled)
    # A cell of a plugin that is recorded, but was not given.
    events = folders[1] / "events.jsonl"
    lines = [json.loads(line) for line in events.read_text().splitlines()]
    lines[0]["plugins"] = ["strange_plugin", str(place / "strange_plugin.py")]
    events.write_text("".join(json.dumps(line) + "\n" for line in lines))
    for arguments in (
        ("report", "--no-mlflow"),
        ("inspect", "model", folders[0].name, "--out", "seen", "--no-mlflow", "--device", "cpu"),
    ):
        said = installed(*arguments).stderr
        assert not marker.exists(), (arguments, sorted(path.name for path in marker.iterdir()))
        assert "strange_plugin" not in said or "--plugin" in said


def test_the_servers_of_deploy_are_reachable_from_this_machine_alone() -> None:
    script = (ROOT / "deploy" / "serve.sh").read_text()
    assert "mlflow server --host 127.0.0.1 " in script
    assert "listen_addresses=127.0.0.1 " in script
    assert "0.0.0.0" not in script
    published = re.findall(r'- "(.*:\d+:\d+)"', (ROOT / "deploy" / "compose.yaml").read_text())
    assert published == ["127.0.0.1:5001:5432", "127.0.0.1:5000:5000"]
