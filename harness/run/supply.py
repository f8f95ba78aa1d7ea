"""What a data set has in it, and how many images a second it could feed to a training."""

from __future__ import annotations

import time
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from harness.config import ConfigError
from harness.config.brought import data_options
from harness.run.checks import validate_data
from harness.run.names import check_name
from harness.training.data import Dataset, train_batches
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
