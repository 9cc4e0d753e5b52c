"""The table of models by consistency in docs/consistency.md: takes in evaluations, checks and renders them.

    python benchmarks/consistency/table.py add --data "CIFAR-10 test" OUT/evaluation.json ...
    python benchmarks/consistency/table.py render

A result is a small JSON file whose name ends in the digest of its content, so a number changed by hand is found.
Whoever has the weights and the images can repeat it: their digests are in the file.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from poolbench.files import write_atomically

HERE = Path(__file__).parent
RESULTS = HERE / "results"
PAGE = HERE.parents[1] / "docs" / "consistency.md"
INTERVALS = ("flips", "flipped", "change", "worst")
START, END = "<!-- rows -->", "<!-- end of rows -->"


def reduced(evaluation: Mapping[str, Any], data_name: str) -> dict[str, Any]:
    """Return what the table keeps of an evaluation; raise ValueError for one that ranks no trained model."""
    model, data, steps = evaluation["model"], evaluation["data"], evaluation["steps"][0]
    if model["is_untrained"]:
        raise ValueError("the weights are random; give --weights")
    if evaluation["accuracy"] is None:
        raise ValueError("the images have no labels; consistency without accuracy does not rank models")
    return {
        "model": {name: model[name] for name in ("spec", "digest", "parameters", "size", "large", "preprocessing")},
        "data": {"name": data_name, "digest": data["digest"], "images": data["images"]},
        "classes": len(data["classes"]),
        "accuracy": evaluation["accuracy"],
        **{name: steps[name] for name in INTERVALS},
        "published": evaluation["published"],
        "exact": {name: evaluation["exact"][name] for name in ("positions", "consistency")},
        "flops": evaluation["cost"]["flops"],
        "environment": {name: evaluation["environment"].get(name) for name in ("poolbench", "torch", "timm")},
    }


def add(path: Path, data_name: str) -> Path:
    """Store an evaluation under its content's digest; return the file."""
    content = reduced(json.loads(path.read_text()), data_name)
    text = json.dumps(content, indent=1, sort_keys=True) + "\n"
    name = re.sub(r"[^A-Za-z0-9_.-]+", "_", content["model"]["spec"])
    target = RESULTS / f"{name}-{_digest(text)}.json"
    RESULTS.mkdir(exist_ok=True)
    write_atomically(target, text.encode())
    return target


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def read(folder: Path = RESULTS) -> list[dict[str, Any]]:
    """Return all results; raise ValueError that names a file whose content is not that of its name."""
    found = []
    for path in sorted(folder.glob("*.json")):
        text = path.read_text()
        if not path.stem.endswith(f"-{_digest(text)}"):
            raise ValueError(f"{path.name}: the content has the digest {_digest(text)}; it was changed")
        found.append(json.loads(text))
    return found


def rendered(results: Sequence[Mapping[str, Any]], page: str) -> str:
    """Return the page with a table per data set between its marks, the most stable model first."""
    lines: list[str] = []
    by_data: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for result in results:
        by_data.setdefault((result["data"]["name"], result["data"]["digest"]), []).append(result)
    for (name, digest), members in sorted(by_data.items()):
        images, classes = members[0]["data"]["images"], members[0]["classes"]
        lines += [f"### {name}: {images:,} images, {classes} classes (digest {digest})", ""]
        lines += [f"| {' | '.join(HEAD)} |", "|---|--:" + "|--:" * (len(HEAD) - 2) + "|"]
        lines += [_row(one) for one in sorted(members, key=lambda one: float(one["flips"]["mean"]))] + [""]
    before, rest = page.split(START)
    return f"{before}{START}\n\n" + "\n".join(lines) + f"\n{END}{rest.split(END)[1]}"


HEAD = (
    "model", "accuracy", "decisions changed by 1 px", "images changed by a step", "correct under all steps",
    "published consistency", "exact consistency", "input", "parameters", "MFLOPs", "weights",
)  # fmt: skip


def _row(one: Mapping[str, Any]) -> str:
    model = one["model"]
    numbers = [one["accuracy"], one["flips"], one["flipped"], one["worst"], one["published"]["agreement"]]
    cells = [f"`{model['spec']}`", *(_share(interval) for interval in (*numbers, one["exact"]["consistency"]))]
    cells += [f"{model['size']} of {model['large']} px", f"{model['parameters'] / 1e6:.1f} M"]
    return "| " + " | ".join([*cells, f"{one['flops'] / 1e6:,.0f}", f"`{model['digest'][:12]}`"]) + " |"


def _share(interval: Mapping[str, float]) -> str:
    mean, low, high = (f"{100 * interval[name]:.1f}" for name in ("mean", "low", "high"))
    return f"{mean} [{low}, {high}]"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    adding = commands.add_parser("add", help="take in results of 'poolbench evaluate'")
    adding.add_argument("--data", required=True, help="the name of the images, such as 'ImageNet validation'")
    adding.add_argument("evaluations", nargs="+", type=Path, help="evaluation.json of 'poolbench evaluate'")
    commands.add_parser("render", help="write the table into docs/consistency.md")
    given = parser.parse_args(arguments)
    try:
        if given.command == "add":
            for path in given.evaluations:
                print(add(path, given.data))
        else:
            write_atomically(PAGE, rendered(read(), PAGE.read_text()).encode())
            print(PAGE)
    except (OSError, ValueError, KeyError) as error:
        print(f"table.py: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
