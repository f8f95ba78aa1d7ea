"""The images of a run: loaded once a process, and whether they are still those that it was trained on."""

from __future__ import annotations

import functools
import json
from dataclasses import replace
from typing import Any, NamedTuple

import torch

from harness.config import ConfigError
from harness.config.brought import may_change
from harness.runtime.console import Console
from harness.store.fingerprints import agree, is_older
from harness.training.data import Dataset, load

OLDER = (
    "its fingerprint of the data is of an older kind: names and sizes of the images are the same now, their contents it "
    "did not know"
)


class Loaded(NamedTuple):
    """A data set on a device, and what tells it from others."""

    data: Dataset
    written: str | None  # see Dataset.written
    fingerprint: str


def load_images(config: dict[str, Any], device: torch.device, console: Console) -> tuple[Dataset, str]:
    """The data set of a `data` configuration on a device, and its fingerprint; kept for the next run of this process,
    unless somebody writes to its files.
    """
    loaded = load_cached(json.dumps(config), device, console)
    if loaded.data.written() != loaded.written:
        load_cached.cache_clear()
        loaded = load_cached(json.dumps(config), device, console)
    return loaded.data, loaded.fingerprint


@functools.lru_cache(maxsize=1)
def load_cached(key: str, device: torch.device, console: Console) -> Loaded:
    config = json.loads(key)
    data = load(config, console)
    written = data.written()
    fingerprint = data.fingerprint(config.get("verify") == "full")
    return Loaded(replace(data, train=data.train.pad(config["padding"])).to(device), written, fingerprint)


def check_unwritten(config: dict[str, Any], device: torch.device, console: Console) -> None:
    """Raise ConfigError where somebody has written to the files of a set since it was loaded: nobody knows what a run
    has seen of them.
    """
    loaded = load_cached(json.dumps(config), device, console)
    if loaded.data.written() != loaded.written:
        raise ConfigError(
            f"somebody wrote to images of {config['root']} while the run read them; the same command runs it again"
        )


def compare_data(known: str | None, data: Dataset, now: str) -> tuple[bool, str]:
    """Whether a record's fingerprint is of these data, whose fingerprint is `now`; and what there is to say of it."""
    if known is None:
        return False, f"it knows none, now {now}"
    if agree(known, now):
        return True, ""
    if is_older(known, now) and known == data.older_fingerprint:
        return True, OLDER
    return False, f"{known}, now {now}"


def changed(record: dict[str, Any], config: dict[str, Any], console: Console) -> str | None:
    """What there is to say of a finished run whose images may be others by now; None where they are the same.

    Published sets are verified where they are read; folders are anybody's.
    """
    if not may_change(config["data"]["name"]) or record["status"] != "done":
        return None
    known = record["provenance"]["data"]
    try:
        data, now = load_images(config["data"], torch.device("cpu"), console)
    except ConfigError as error:
        return f"nobody knows whether its images are still those that it was trained on: {error}"
    same, said = compare_data(known, data, now)
    if same:
        return said or None
    where = config["data"]["root"] or f"data={config['data']['name']}"
    return (
        f"it was trained and tested on other images ({known}) than {where} holds now ({now}); "
        "force=true trains it on these"
    )
