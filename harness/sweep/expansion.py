"""The runs that a sweep's overrides stand for, each as the overrides that Hydra composes it from."""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import (
    ChoiceSweep,
    Glob,
    Override,
    OverrideType,
    Quote,
    QuotedString,
    Sweep,
    Transformer,
)
from omegaconf import OmegaConf

import methods
from harness.config import ConfigError
from harness.config.composition import word

Job = tuple[str, ...]  # a run's overrides, in the order in which Hydra applies them
OPTION = re.compile(r"(?!hydra\.)[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")


@dataclass(frozen=True)
class Literal:
    """What an override says that sets one option to one number, word or null."""

    key: str
    value: int | float | bool | str | None


class Expansion:
    """Every combination of overrides' values, as Hydra's own sweeper has them: a later override of a key replaces an
    earlier one, in its place. `literals`: what those overrides say that need no parser any more.
    """

    def __init__(self, parser: OverridesParser):
        self.parser = parser
        self.literals: dict[str, Literal] = {}

    def expand(self, overrides: list[Override]) -> list[Job]:
        """Raises ConfigError for what cannot be enumerated."""
        values: dict[str, list[str]] = {}
        for override in overrides:
            values[override.get_key_element()] = self.texts(override)
        return list(itertools.product(*values.values()))

    def texts(self, override: Override) -> list[str]:
        """An override of many values as many overrides of one."""
        key = override.get_key_element()
        check_elements(override)
        if not override.is_sweep_override():
            elements, texts = [override.value()], [override.get_value_element_as_str()]
        elif override.is_discrete_sweep():
            elements = list(override.sweep_iterator())
            texts = list(map(Transformer.str, elements))
        else:
            raise ConfigError(f"{override.input_line}: only lists, ranges and patterns can be swept over")
        if key == "method":
            elements = texts = expand_groups([word(element) for element in elements])
        texts = [f"{key}={text}" for text in texts]
        for text, element in zip(texts, elements, strict=True):
            self.note(override, text, element)
        return texts

    def note(self, override: Override, text: str, element: Any) -> None:
        """Keep what a literal says. Numbers are known from a list or range; a word only its parser can tell from one."""
        if override.type != OverrideType.CHANGE or override.package or not OPTION.fullmatch(override.key_or_group):
            return
        if type(element) in (int, float, bool, type(None)):
            value = element
        else:
            value = self.parser.parse_override(text).value()
            if isinstance(value, list | dict) or (isinstance(value, str) and ("${" in value or value == "???")):
                return
        self.literals[text] = Literal(override.key_or_group, value)


def check_elements(override: Override) -> None:
    """Raise ConfigError for a list with a list in it, which Hydra takes for a value."""
    chosen = override.value()
    if isinstance(chosen, ChoiceSweep) and any(isinstance(element, Sweep | Glob) for element in chosen.list):
        raise ConfigError(
            f"{override.input_line}: a range or pattern is no value of a list: give each value, one by one"
        )


def expand_groups(names: list[str]) -> list[str]:
    """Method names with `all` and `baselines` replaced by what they stand for, each name once."""
    groups = methods.groups()
    return list(dict.fromkeys(name for given in names for name in groups.get(given, [given])))


def to_override(key: str, value: Any) -> str:
    """An entry of `hydra.sweeper.params` as an override: a text is its right side, anything else a value."""
    value = OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value
    return f"{key}={value if isinstance(value, str) else Transformer.str(quoted(value))}"


def quoted(value: Any) -> Any:
    """A value with every text in it (but for keys) in quotes, so that it is read as no more than a text."""
    if isinstance(value, dict):
        return {key: quoted(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [quoted(inner) for inner in value]
    return QuotedString(value, Quote.double) if isinstance(value, str) else value
