"""The images of a run: loaded once a process, and whether they are still those that it was trained on."""

from __future__ import annotations

import functools
import json
from dataclasses import replace
from typing import Any

import torch

from harness.config import ConfigError
from harness.config.options import FOLDERS
from harness.runtime.console import Console
from harness.training.data import Dataset, load


def load_images(config: dict[str, Any], device: torch.device, console: Console) -> tuple[Dataset, str]:
    """The data set of a `data` configuration on a device, and its fingerprint; kept for the next run of this process."""
    return load_cached(json.dumps(config), device, console)


@functools.lru_cache(maxsize=1)
def load_cached(key: str, device: torch.device, console: Console) -> tuple[Dataset, str]:
    config = json.loads(key)
    data = load(config, console)
    return replace(data, train=data.train.pad(config["padding"])).to(device), data.fingerprint()


def changed(record: dict[str, Any], config: dict[str, Any], console: Console) -> str | None:
    """What there is to say of a finished run whose images are others by now; None where they are the same.

    Published sets are verified where they are read; folders are anybody's.
    """
    if config["data"]["name"] not in FOLDERS or record["status"] != "done":
        return None
    known = record["provenance"]["data"]
    try:
        _, now = load_images(config["data"], torch.device("cpu"), console)
    except ConfigError as error:
        return f"nobody knows whether its images are still those that it was trained on: {error}"
    if now == known:
        return None
    return (
        f"it was trained and tested on other images ({known}) than {config['data']['root']} holds now ({now}); "
        "force=true trains it on these"
    )
