"""The teachers of a run as runs of their own: a supervised one for each member of its set."""

from __future__ import annotations

from typing import Any

from harness.config.methods import build_method


def teacher_config(config: dict[str, Any], member: int) -> dict[str, Any]:
    """The configuration that trains member m of a run's teacher set: a supervised run with streams of its own."""
    teachers = config["teachers"]
    return {
        **config,
        "method": {"name": "supervised", "reestimate_bn": False},
        "model": teachers["model"] or config["model"],
        "train": {**config["train"], **teachers["train"]},
        "seed": f"teacher/{teachers['set']}/{member}",
        "teachers": {"size": 0, "set": teachers["set"], "model": None, "train": {}, "cache": "none"},
        "evaluate": {key: False for key in config["evaluate"]},
    }


def teacher_configs(config: dict[str, Any]) -> list[dict[str, Any]]:
    """Configurations of every teacher that a run reads from the bank, in member order."""
    size = 0 if build_method(config).teachers == 0 else config["teachers"]["size"]
    return [teacher_config(config, member) for member in range(size)]
