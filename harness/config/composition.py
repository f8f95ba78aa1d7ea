"""What Hydra composes: the groups it chooses from, and its result as a plain dict."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterable
from dataclasses import fields
from importlib import resources
from pathlib import Path
from typing import Any

from hydra.core.override_parser.types import Override, QuotedString
from omegaconf import DictConfig, OmegaConf, flag_override

import methods
from harness.config import ConfigError, brought
from harness.config.methods import method_options
from harness.config.options import TRAIN, Config, SweeperOptions

HYDRAS = ("hydra", "defaults")  # of a composed configuration: not a run's


def register() -> None:
    """Tell Hydra the groups and their options."""
    from hydra.core.config_store import ConfigStore

    store = ConfigStore.instance()
    # Hydra 1.3 copies all that is stored for every configuration that it composes; the next one does not (its pull request
    # 2928). What it reads of the store it copies anyhow.
    store.__deepcopy__ = lambda memo: store
    store.store(name="config", node=Config)
    store.store(group="hydra/sweeper", name="harness", node=SweeperOptions)
    for group, members in methods.groups().items():
        # A placeholder, so that Hydra can compose what the sweeper will expand; a single run of it is refused.
        store.store(group="method", name=group, node={"name": group, "stands_for": members})
        for name in members:
            store.store(group="method", name=name, node=method_options(name))
    for name in brought.data_names():
        store.store(group="data", name=name, node=brought.data_options(name))
    for name, train in TRAIN.items():
        store.store(group="train", name=name, node=train)
    for preset in sorted(resources.files("sweeps").iterdir(), key=lambda file: file.name):
        if preset.name.endswith(".yaml"):
            node = OmegaConf.create(preset.read_text())
            store.store(group="sweep", name=preset.name.removesuffix(".yaml"), node=node, package="_global_")


def words(override: Override) -> list[str]:
    """What an option is set to, one or several, as texts; not as sweep_string_iterator, with a backslash before each colon."""
    values = override.sweep_iterator() if override.is_discrete_sweep() else [override.value()]
    return list(map(word, values))


def word(element: Any) -> str:
    return element.text if isinstance(element, QuotedString) else str(element)


def register_brought(overrides: Iterable[Override]) -> None:
    """Tell Hydra those data sets that overrides choose as MODULE:FUNCTION."""
    from hydra.core.config_store import ConfigStore

    for override in overrides:
        if override.key_or_group != "data" or override.is_delete():
            continue
        for name in words(override):
            if ":" in name:
                ConfigStore.instance().store(group="data", name=name, node=brought.data_options(name))


def plain(composed: DictConfig) -> dict[str, Any]:
    """A composed configuration as nested dicts. What reads Hydra's part of it does so by `${hydra:...}`, as in any job.

    Raises ConfigError where an option was deleted, and what OmegaConf raises.
    """
    return contents(own_part(composed))


def own_part(composed: DictConfig) -> DictConfig:
    """A copy of what of a composed configuration is a run's, not Hydra's. Raises ConfigError where an option was deleted."""
    for option in fields(Config):
        if option.name not in HYDRAS and option.name not in composed.keys():  # noqa: SIM118  `in` denies what is ???
            raise ConfigError(f"~{option.name} deletes an option that every run has: give it another value")
    ours = copy.deepcopy(composed)  # whole: parts of it would not know the types of their options
    with flag_override(ours, ["readonly", "struct"], False):
        ours.pop("hydra", None)
    with flag_override(ours.teachers.train, "struct", False):
        for name in [name for name in ours.teachers.train if OmegaConf.is_missing(ours.teachers.train, name)]:
            ours.teachers.train.pop(name, None)  # it is as in `train`
    return ours


def contents(node: Any) -> Any:
    """What a node of a configuration comes to, as in a record, where every key is a text. Raises what OmegaConf raises."""
    if OmegaConf.is_config(node):
        node = OmegaConf.to_container(node, resolve=True, throw_on_missing=True)
    return json.loads(json.dumps(node))


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
