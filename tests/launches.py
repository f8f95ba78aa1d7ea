"""How many kernels a step launches, by method and operator.

`python -m tests.launches` shows what changed. `python -m tests.launches --refresh` stores what this code launches; the
diff of `tests/data/launches.json` shows it. An operator counts once, however many kernels it runs, and batch and images
are as small as they come: launches do not depend on these. A step is the trainer's, its batch made and its loss added up.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path

import torch

import methods
from tests.pretended_gpu import launches
from tests.trial import Trial, pretend

PATH = Path(__file__).parent / "data" / "launches.json"
NETWORKS = ("preresnet20", "wrn28_4")
CASES = [
    *(f"{network} {method} float32" for network in NETWORKS for method in ("supervised", *methods.VARIANTS)),
    *(f"{network} combined bfloat16" for network in NETWORKS),
]
MEMBERS = 4
TOLERANCE = 0.15  # of the total, where another torch than this one's was counted: it cuts operators another way


def count(case: str) -> Counter[str]:
    """What a step launches, by operator."""
    torch.set_num_threads(1)
    network, method, precision = case.split()
    trial = Trial(methods.load(method)(), network, recipe={"precision": precision}, members=MEMBERS)
    return launches(pretend(trial).steps[-1])


def read() -> tuple[str, dict[str, Counter[str]]]:
    """torch's version then, and the launches by case."""
    stored = json.loads(PATH.read_text())
    return stored["torch"], {case: Counter(found) for case, found in stored["launches"].items()}


def difference(case: str, version: str, stored: Counter[str] | None, now: Counter[str]) -> str:
    """What changed, an operator a line; empty where nothing did."""
    if stored is None:
        return f"{case} is new, with {now.total()} launches a step: python -m tests.launches --refresh"
    ours, theirs = (".".join(each.split(".")[:2]) for each in (torch.__version__, version))
    apart = abs(now.total() - stored.total())
    if now == stored or (ours != theirs and apart <= TOLERANCE * stored.total()):
        return ""
    changed = [name for name in sorted(stored | now) if stored[name] != now[name]]
    return "\n".join(
        [
            f"{case}: {stored.total()} launches a step (stored with torch {version}), now {now.total()}",
            *(f"  {name:<28} {stored[name]:>5} -> {now[name]:<5} {now[name] - stored[name]:+}" for name in changed),
            "  if this is meant: python -m tests.launches --refresh",
        ]
    )


def main(arguments: list[str]) -> int:
    version, stored = read() if PATH.exists() else (torch.__version__, {})
    now = {case: count(case) for case in CASES}
    changes = [difference(case, version, stored.get(case), now[case]) for case in CASES]
    print("\n".join(filter(None, changes)) or "nothing changed")
    print("\n" + "\n".join(f"{case:<42} {found.total():>5}" for case, found in now.items()))
    if arguments == ["--refresh"]:
        lines = ",\n".join(f'  "{case}": {json.dumps(dict(sorted(found.items())))}' for case, found in now.items())
        PATH.write_text(f'{{\n "torch": "{torch.__version__}",\n "launches": {{\n{lines}\n }}\n}}\n')
        return 0
    return int(any(changes))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
