"""`python -m harness.data NAME [ROOT] [OPTION=VALUE ...]`: get a data set, check it, say what is in it and how fast it is.

On a node with internet it downloads what is missing. OPTION is any of the data set's, such as image_size=160 workers=8.
The throughput is that of train batches alone, without a network: what a training could be fed at most.
"""

from __future__ import annotations

import sys
import time
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from harness.config import ConfigError
from harness.config.brought import data_options
from harness.run.checks import validate_data
from harness.run.names import check_name
from harness.runtime.console import Console, complain, run_command
from harness.training.data import Dataset, load, train_batches
from harness.training.data.batches import Batches
from harness.training.device import choose_device

BATCH = 128
SECONDS = 5.0


def configure(arguments: list[str]) -> dict[str, Any]:
    """The `data` configuration of a command line. Raises ConfigError for what it does not know."""
    name, rest = arguments[0], arguments[1:]
    check_name("data", name)
    root = [f"root={value}" for value in rest[:1] if "=" not in value]
    try:
        options = OmegaConf.merge(
            OmegaConf.structured(data_options(name)), OmegaConf.from_dotlist(root + rest[len(root) :])
        )
    except (OmegaConfBaseException, YAMLError) as error:
        raise ConfigError(str(error).splitlines()[0]) from error
    config = {**OmegaConf.to_container(options), "name": name, "download": True}
    validate_data(config)
    return config


def throughput(batches: Batches) -> float:
    """Images a second, from the first batch's arrival on, over about SECONDS."""
    shown, epoch = -1, 0
    while True:
        for batch in batches.epoch(epoch):
            shown += 1
            if shown == 0:
                start = time.perf_counter()
            elif (elapsed := time.perf_counter() - start) > SECONDS:
                return shown * len(batch.labels) / elapsed
        epoch += 1


def describe(name: str, data: Dataset, config: dict[str, Any]) -> str:
    """What is in the set, and images a second."""
    sizes = ", ".join(f"{split} {len(getattr(data, split)):,}" for split in ("train", "validation", "test"))
    shape = "x".join(map(str, data.train.images.shape[1:]))
    device = choose_device("auto")
    batches = train_batches(data.to(device).train, config["padding"], config["flip"], 0, min(BATCH, len(data.train)))
    how = f"{workers} workers" if (workers := getattr(data.train.images, "workers", None)) is not None else "in memory"
    return (
        f"{name}: {data.classes} classes, images {shape}; {sizes}; fingerprint {data.fingerprint(config['verify'] == 'full')}; "
        f"train batches: {throughput(batches):,.0f} images/s ({how}, {device.type})"
    )


def main(arguments: list[str] | None = None) -> int:
    arguments = sys.argv[1:] if arguments is None else arguments
    if not arguments or arguments[0].startswith("-"):
        print(__doc__)
        return 0 if arguments and arguments[0] in ("-h", "--help") else 2
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
