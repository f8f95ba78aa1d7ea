"""`python -m harness.data NAME [ROOT]`: get a data set, check it, and say what is in it (on a node with internet)."""

from __future__ import annotations

import sys
from dataclasses import asdict, replace

from harness.config import DATA, ConfigError, check_name
from harness.data import load
from harness.progress import Console


def main(arguments: list[str]) -> int:
    if not 1 <= len(arguments) <= 2 or arguments[0].startswith("-"):
        print(__doc__)
        return 0 if arguments and arguments[0] in ("-h", "--help") else 2
    console = Console()
    try:
        check_name("data", arguments[0])
        chosen = replace(DATA[arguments[0]], root=arguments[1] if len(arguments) > 1 else None, download=True)
        data = load(asdict(chosen), console)
    except ConfigError as error:
        console.close()
        print(f"error: {error}", file=sys.stderr)
        return 2
    sizes = ", ".join(f"{name} {len(getattr(data, name)):,}" for name in ("train", "validation", "test"))
    shape = "x".join(map(str, data.train.images.shape[1:]))
    console.say(f"{arguments[0]}: {data.classes} classes, images {shape}; {sizes}; fingerprint {data.fingerprint()}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
