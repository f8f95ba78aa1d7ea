"""The one door to YAML files: plain ones, of a size that a person writes, every key once."""

from __future__ import annotations

from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

from harness.store.files import Damaged, read_bytes

MOST = 1 << 18  # bytes


class Loader(yaml.SafeLoader):
    """Without aliases: a few lines of them stand for more nodes than there is memory, or for themselves."""

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark
            raise yaml.composer.ComposerError(None, None, "aliases (*name) are not read here", mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        if repeated := [key for key in keys if keys.count(key) > 1]:
            raise yaml.constructor.ConstructorError(None, None, f"{repeated[0]} stands there twice", node.start_mark)
        return super().construct_mapping(node, deep)


def read_yaml(path: Path) -> Any:
    """A file's content; None where there is none, or nothing in it. Raises Damaged, and Unreadable."""
    content = read_bytes(path, MOST)
    if content is None:
        return None
    try:
        return yaml.load(content.decode(), Loader)
    except RecursionError as error:
        raise Damaged(f"{path} is not valid YAML (nested too deeply)") from error
    except (yaml.YAMLError, ValueError) as error:  # no UTF-8, a date that is none, a number of thousands of digits
        raise Damaged(f"{path} is not valid YAML: {' '.join(str(error).split())[:300]}") from error
