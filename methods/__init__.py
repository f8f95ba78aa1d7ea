"""The variants of ensemble distillation: one file each, on the interface of `methods.method`.

Names stand for "module:Class", so that listing them imports nothing. A variant of your own is one file and one line in
`VARIANTS`; in a package of your own it is an entry point in the group `harness.methods`.
"""

from __future__ import annotations

import functools
from importlib.metadata import EntryPoint, entry_points

VARIANTS = {
    "kd": "methods.kd:KD",
    "ensemble_kd": "methods.ensemble_kd:EnsembleKD",
    "weight_averaging": "methods.weight_averaging:WeightAveraging",
    "perturbation": "methods.perturbation:Perturbation",
    "combined": "methods.combined:Combined",
}
BASELINES = {
    "supervised": "methods.baselines.supervised:Supervised",
    "kd_gaussian": "methods.baselines.gaussian:KDGaussian",
    "kd_mixup": "methods.baselines.mixup:KDMixUp",
    "kd_ods": "methods.baselines.ods:KDODS",
    "kd_confods": "methods.baselines.ods:KDConfODS",
    "function_matching": "methods.baselines.function_matching:FunctionMatching",
    "ae_kd": "methods.baselines.ae_kd:AEKD",
    "ca_mkd": "methods.baselines.ca_mkd:CAMKD",
    "dkd": "methods.baselines.dkd:DKD",
    "lskd": "methods.baselines.lskd:LSKD",
    "end2": "methods.baselines.end2:EnD2",
    "proxy_end2": "methods.baselines.proxy_end2:ProxyEnD2",
    "soup": "methods.baselines.soup:Soup",
    "latentbe_gaussian": "methods.baselines.gaussian:LatentBEGaussian",
    "latentbe_mixup": "methods.baselines.mixup:LatentBEMixUp",
    "latentbe_ods": "methods.baselines.ods:LatentBEODS",
    "latentbe_confods": "methods.baselines.ods:LatentBEConfODS",
    "latentbe_tdiv": "methods.baselines.tdiv:LatentBETDiv",
    "hydra": "methods.baselines.hydra:Hydra",
    "batch_ensemble": "methods.baselines.unmerged:BatchEnsemble",
    "latentbe_unmerged": "methods.baselines.unmerged:LatentBEUnmerged",
    "deep_ensemble": "methods.baselines.deep_ensemble:DeepEnsemble",
}
ENTRY_POINTS = "harness.methods"


@functools.cache
def variants() -> dict[str, str]:
    """Name -> "module:Class" of every variant: this package's, then those that installed packages bring."""
    found = {point.name: point.value for point in entry_points(group=ENTRY_POINTS)}
    return {**VARIANTS, **{name: found[name] for name in sorted(found) if name not in BASELINES}, **VARIANTS}


def groups() -> dict[str, list[str]]:
    """What `method=all` and `method=baselines` stand for."""
    return {"all": list(variants()), "baselines": list(BASELINES)}


def target(name: str) -> str:
    """ "module:Class" of a name. Raises KeyError where there is none."""
    return {**BASELINES, **variants()}[name]


@functools.cache
def load(name: str) -> type:
    """The Method class of a name. Raises KeyError where there is none."""
    return EntryPoint(name, target(name), ENTRY_POINTS).load()
