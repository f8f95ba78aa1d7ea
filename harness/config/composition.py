"""What Hydra composes: the groups it chooses from, and its result as a plain dict."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

import methods
from harness.config.methods import method_options
from harness.config.options import DATA, TRAIN, Config, SweeperOptions


def register() -> None:
    """Tell Hydra the groups and their options."""
    from hydra.core.config_store import ConfigStore

    store = ConfigStore.instance()
    store.store(name="config", node=Config)
    store.store(group="hydra/sweeper", name="harness", node=SweeperOptions)
    for group, members in methods.groups().items():
        # A placeholder, so that Hydra can compose what the sweeper will expand; a single run of it is refused.
        store.store(group="method", name=group, node={"name": group, "stands_for": members})
        for name in members:
            store.store(group="method", name=name, node=method_options(name))
    for name, data in DATA.items():
        store.store(group="data", name=name, node=data)
    for name, train in TRAIN.items():
        store.store(group="train", name=name, node=train)
    for preset in sorted(resources.files("sweeps").iterdir(), key=lambda file: file.name):
        if preset.name.endswith(".yaml"):
            node = OmegaConf.create(preset.read_text())
            store.store(group="sweep", name=preset.name.removesuffix(".yaml"), node=node, package="_global_")


def plain(composed: DictConfig) -> dict[str, Any]:
    """A composed configuration as nested dicts."""
    ours = OmegaConf.masked_copy(composed, [key for key in composed if key not in ("hydra", "defaults")])
    return OmegaConf.to_container(ours, resolve=True, throw_on_missing=True)


def settle_paths(config: dict[str, Any]) -> dict[str, Any]:
    """The configuration with its folders as they are meant: `~` is home, and the data lie where they lie from anywhere.

    Symbolic links stay: what tells one `data=folder` from another is the path as it was given.
    """
    for node, key in ((config, "runs"), (config, "bank"), (config["data"], "root")):
        if node[key] is not None:
            node[key] = str(Path(node[key]).expanduser())
    if config["data"]["root"] is not None:
        config["data"]["root"] = str(Path(config["data"]["root"]).absolute())
    return config
