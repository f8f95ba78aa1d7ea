"""The runs that a sweep's overrides stand for."""

from __future__ import annotations

import itertools
import re

from hydra.core.override_parser.types import Override, OverrideType

import methods
from harness.config import ConfigError
from harness.run.names import check_name
from harness.sweep.shapes import is_shape


def expand(overrides: list[Override]) -> list[tuple[str, ...]]:
    """Every combination of the overrides' values; a later override of a key replaces an earlier one."""
    values: dict[str, list[str]] = {}
    for override in overrides:
        if is_hydras(override):
            continue  # it shapes the sweep, not its runs
        key = override.get_key_element()
        if override.is_sweep_override():
            if not override.is_discrete_sweep():
                raise ConfigError(f"{override.input_line}: only lists, ranges and patterns can be swept over")
            found = list(override.sweep_string_iterator())
        else:
            found = [override.get_value_element_as_str()]
        if override.key_or_group == "method":
            found = expand_groups(found)
        elif override.key_or_group in ("data", "train", "model") and override.is_sweep_override():
            for name in found:
                check_name(override.key_or_group, name)
        values[key] = [f"{key}={value}" if override.type != OverrideType.DEL else key for value in found]
    return list(itertools.product(*values.values()))


def is_hydras(override: Override) -> bool:
    """Whether an override is Hydra's own and the same for every run."""
    return re.match(r"hydra[./]", override.key_or_group) is not None and not is_shape(override.key_or_group)


def expand_groups(names: list[str]) -> list[str]:
    """Method names with `all` and `baselines` replaced by what they stand for, each name once."""
    groups = methods.groups()
    expanded = dict.fromkeys(name for given in names for name in groups.get(given, [given]))
    for name in expanded:
        check_name("method", name)
    return list(expanded)
