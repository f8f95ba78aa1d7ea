"""`python -m harness.data NAME [ROOT] [OPTION=VALUE ...]`: get a data set, check it, say what is in it and how fast it is.

On a node with internet it downloads what is missing. OPTION is any of the data set's, such as image_size=160 workers=8.
The throughput is that of train batches alone, without a network: what a training could be fed at most.
"""

from __future__ import annotations

import sys

from harness.config import ConfigError
from harness.runtime.console import Console, complain, run_command


def main(arguments: list[str] | None = None) -> int:
    arguments = sys.argv[1:] if arguments is None else arguments
    if not arguments or arguments[0].startswith("-"):
        print(__doc__)
        return 0 if arguments and arguments[0] in ("-h", "--help") else 2
    from harness.run.supply import configure, describe  # torch, which help does not wait for
    from harness.training.data import load

    console = Console()
    try:
        config = configure(arguments)
        told = describe(arguments[0], load(config, console), config)
    except (ConfigError, OSError) as error:
        console.close()
        complain(error)
        return 2
    console.say(told)
    return 0


if __name__ == "__main__":
    run_command(main)
