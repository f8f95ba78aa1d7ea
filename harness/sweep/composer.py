"""The configurations of many runs, as Hydra would compose them one by one."""

from __future__ import annotations

import functools
import pickle
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import OverrideType
from hydra.types import HydraContext, RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from harness.config import ConfigError
from harness.config.composition import plain

Config = dict[str, Any]


class Composer:
    """Configurations of many runs. Hydra composes each choice of groups once; plain values are set on a copy."""

    def __init__(self, context: HydraContext, config: DictConfig, parser: OverridesParser):
        self.loader = context.config_loader
        self.name = config.hydra.job.config_name
        self.bases: dict[tuple[str, ...], tuple[DictConfig, bytes]] = {}
        self.parse = functools.cache(parser.parse_override)
        self.is_group = functools.cache(lambda key: bool(self.loader.get_group_options(key)))
        self.convert = functools.cache(self._convert)

    def compose(self, job: tuple[str, ...]) -> Config:
        choices = tuple(override for override in job if not self.is_value(override))
        if choices not in self.bases:
            composed = self.loader.load_configuration(self.name, list(choices), RunMode.RUN, from_shell=False)
            self.bases[choices] = composed, pickle.dumps(plain(composed))
        config = pickle.loads(self.bases[choices][1])
        for override in filter(self.is_value, job):
            *groups, key = self.parse(override).key_or_group.split(".")
            node = config
            for group in groups:
                node = node[group]
            node[key] = pickle.loads(self.convert(choices, override))
        return config

    def is_value(self, override: str) -> bool:
        """Whether an override sets one option, and so leaves the rest as it is."""
        parsed = self.parse(override)
        return parsed.type == OverrideType.CHANGE and parsed.package is None and not self.is_group(parsed.key_or_group)

    def _convert(self, choices: tuple[str, ...], override: str) -> bytes:
        """A plain override's value, converted to its option's type by OmegaConf, pickled for copies.

        Raises ConfigError where there is no such option or the value does not fit.
        """
        scratch, parsed = self.bases[choices][0], self.parse(override)
        key = parsed.key_or_group
        try:
            OmegaConf.update(scratch, key, parsed.value())
            value = OmegaConf.select(scratch, key, throw_on_missing=True)
        except OmegaConfBaseException as error:
            raise ConfigError(f"{override}: {str(error).splitlines()[0]}") from error
        return pickle.dumps(OmegaConf.to_container(value) if OmegaConf.is_config(value) else value)
