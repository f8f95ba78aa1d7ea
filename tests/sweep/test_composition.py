"""Every run of a sweep is what Hydra composes from its overrides: random sets of them, against Hydra itself.

With -s how many compositions were compared. HARNESS_FUZZ=N: N sets, of a seed of their own.
"""

from __future__ import annotations

import json
import os
import random
import re
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hydra import initialize_config_dir
from hydra._internal.callbacks import Callbacks
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from hydra.types import HydraContext, RunMode
from omegaconf import OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from harness.config import ConfigError
from harness.config.composition import register, settle_paths
from harness.store.identity import flatten
from harness.sweep.plan import make_plan
from harness.sweep.shapes import launcher_of
from harness.sweep.sweeper import HarnessSweeper

SETS = int(os.environ.get("HARNESS_FUZZ", 0)) or 25
RUNS = 4  # of each that are compared
REFUSED = (ConfigError, HydraException, OmegaConfBaseException, ValueError)

EXPERIMENTS = {
    "plain": "train: {epochs: 7}\nteachers: {set: 2}",
    "reads": "teachers: {set: '${seed}'}\nstudy: {lr: '${train.lr}', at: ['${model}', {x: '${data.padding}'}]}",
    "chained": "defaults: [{override /train: short}]\nstudy: {of: '${teachers.set}'}\ndata: {padding: '${study.of}'}",
    "relative": "train: {warmup_epochs: '${.epochs}'}",
    "missing": "model: ???",
    "asks": "defaults: [{override /hydra/launcher: cpu}]\nhydra: {launcher: {timeout_min: 7}}",
    "asks_by_run": "defaults: [{override /hydra/launcher: cpu}]\n"
    "hydra: {launcher: {name: 'a-${seed}', timeout_min: '${train.epochs}'}}",
    "whole": "study: ${train}",
    "counts": "seed: '${hydra:job.num}'",
    "sweeps": "hydra: {sweeper: {params: {seed: 'range(4)'}}}",
    "sets": "hydra: {job: {env_set: {TROUBLE: some}}}",
    "calls": "hydra: {callbacks: {a: {_target_: tests.test_command_line.Notes}}}",
}
TOGETHER = re.compile(r" (?=[+~]*[\w./]+(?:=|$))")  # between overrides that are only chosen together, in this order
POOL = {
    "groups": [
        "method=kd,combined",
        "method=perturbation",
        "data=digits,cifar10",
        "data=glob(c*)",
        "train=short,smoke",
        "train=paper",
        "+experiment=plain,reads",
        "+experiment=reads",
        "+experiment=chained",
        "+experiment=relative,plain",
        "+experiment=missing",
        "+experiment=asks",
        "+experiment=asks_by_run",
        "+experiment=whole",
        "+experiment=counts",
        "+experiment=[plain,relative]",
        "~data",
    ],
    "literals": [
        "seed=0,1,2",
        "seed=range(3)",
        "seed=5",
        "seed=3,1.5",
        "train.lr=1,0.25",
        "train.lr=range(0.1,0.4,0.1)",
        "train.lr=1e-3,.5,1_0",
        "train.epochs=3,4",
        "train.nesterov=true,off",
        "train.compile=null,default",
        "train.schedule='linear',cosine",
        "teachers.set=0,1",
        "teachers.size=3",
        "teachers.model=null,wrn16_2",
        "teachers.train.lr=1,2.0",
        "model=wrn16_2,preresnet20",
        "model='a b,c','${seed}'",
        "model=a b\\,c,d",
        "model=str(3),'5'",
        "data.padding=0,2",
        "data.magnitude=int(4.0),5",
        "data.root=null,/a/b,'~/c'",
        "bank=/b,null",
        "sweep.poll_s=3",
        "method.temperature=2,3.0",
        "study=null,word",
        "threads=null,2",
        "device=cpu,cuda",
        "nowhere=all,more",
        "study.of=4,5",
    ],
    "reading": [
        "teachers.set=${seed}",
        "teachers.set=${teachers.size},${seed}",
        "train.warmup_epochs=${train.epochs}",
        "train.warmup_epochs=${.epochs}",
        "data.padding=${data.magnitude}",
        "runs=/x/${now:%Y}/${oc.env:HOME}",
        "runs=/x/${model}",
        "study=${oc.select:train.lr,3}",
        "study=${train}",
        "study=${oc.dict.keys:train}",
        "study={lr:${train.lr},at:[${seed},{x:${model}}]}",
        "study='\\${seed}'",
        "teachers.train.epochs=${train.epochs}",
        "study='${train.${study}}',epochs",
        "seed=${hydra:job.num}",
        "data.root=/d/${hydra:runtime.choices.train}",
        "data.root=/d/${hydra:job.override_dirname}",
        "teachers.size=${seed},${extra}",
        "+extra=${seed}",
    ],
    "structures": [
        "train={lr:0.3,epochs:9}",
        "train={lr:0.3},{lr:0.4}",
        "teachers={set:3,train:{epochs:7}} +teachers.train.lr=3,4",
        "data={padding:7}",
        "evaluate.ood=[svhn],[cifar10,'svhn']",
        "evaluate.ood=[]",
        "study={a:1,b:[1,[2,{c:'x,y'}]]}",
        "study={a:{b:1}},{a:{b:2}}",
        "+study.a=3",
        "++study.a.b=4,5",
        "+extra=1,2",
        "++extra='${seed}'",
        "++extra=6",
        "++train.lr=0.7,0.8",
        "+train.more={a:[1]}",
        "++teachers={set:4}",
        "+extra=1 ~extra",
        "+extra=1,2 ~extra=2",
        "study={a:{c:1},b:2} ~study.a",
        "study={a:1,b:2},{a:3} ~study.a=1",
        "study={a:1},{a:2} +study.b=1,2 study.a=7",
        "train.lr=0.7,0.8 train={lr:0.6} train.lr=0.5,0.4",
        "train={lr:0.6} train.lr=0.5,0.4",
        "++train.lr=0.6,0.9 train.lr=0.5,0.4",
        "~train.lr",
    ],
    "launcher": [
        "hydra/launcher=cpu",
        "hydra/launcher=gpu hydra.launcher.mem_gb=5",
        "hydra/launcher=cpu hydra.launcher.timeout_min=${train.epochs}",
        "hydra/launcher=cpu hydra.launcher.name=${model}",
        "hydra/launcher=cpu +hydra.launcher.additional_parameters.x=${teachers.set}",
        "hydra/launcher=cpu hydra.launcher.name=a-${hydra.job.num}",
    ],
}


@pytest.fixture
def loader(tmp_path: Path) -> Iterator[Any]:
    for name, text in EXPERIMENTS.items():
        file = tmp_path / "experiment" / f"{name}.yaml"
        file.parent.mkdir(exist_ok=True)
        file.write_text(f"# @package _global_\n{text}\n")
    register()
    with initialize_config_dir(version_base="1.3", config_dir=str(tmp_path)):
        yield GlobalHydra.instance().config_loader()


def choose(random: random.Random) -> list[str]:
    """Some overrides, in any order; each kind may be missing."""
    most = {"groups": 2, "literals": 3, "reading": 1, "structures": 1, "launcher": 1}
    chosen = [o for kind, pool in POOL.items() for o in random.sample(pool, random.randint(0, most[kind]))]
    random.shuffle(chosen)
    return [override for together in chosen for override in TOGETHER.split(together)]


def by_hydra(loader: Any, master: Any, jobs: dict[int, tuple[str, ...]]) -> dict[int, tuple[Any, Any]]:
    """Configuration and launcher of jobs by their number, as Hydra's launchers compose them, and its jobs see them."""
    found = {}
    for number, job in jobs.items():
        composed = loader.load_sweep_config(master, list(job))
        with open_dict(composed):
            composed.hydra.job.num, composed.hydra.job.id = number, str(number)
        HydraConfig.instance().set_config(composed)
        launcher = OmegaConf.to_container(composed.hydra.launcher, resolve=True)
        with open_dict(composed):
            del composed["hydra"]
        config = OmegaConf.to_container(composed, resolve=True)
        of_teachers = config["teachers"]["train"]
        config["teachers"]["train"] = {key: value for key, value in of_teachers.items() if value != "???"}
        if "???" in flatten(config).values():
            raise ConfigError("something is missing")
        found[number] = config, launcher
    return found


def compare(loader: Any, chosen: list[str], random: random.Random, counts: Counter) -> None:
    try:
        master = loader.load_configuration("config", [*chosen, "hydra.mode=MULTIRUN"], RunMode.MULTIRUN)
    except REFUSED:
        counts["no sweep"] += 1  # Hydra does not come as far as a sweeper
        return
    arguments = OmegaConf.to_container(master.hydra.overrides.task, resolve=False)
    parsed = OverridesParser.create(config_loader=loader).parse_overrides(arguments)
    jobs = dict(enumerate(dict.fromkeys(map(tuple, BasicSweeper.split_arguments(parsed, None)[0]))))
    some = {number: jobs[number] for number in random.sample(sorted(jobs), min(RUNS, len(jobs)))}
    try:
        theirs = by_hydra(loader, master, some)
    except REFUSED as error:
        theirs = error
    sweeper = HarnessSweeper()
    sweeper.setup(hydra_context=HydraContext(loader, Callbacks()), task_function=lambda _: None, config=master)
    try:
        composed = list(sweeper.compose_runs(arguments).values())
    except REFUSED as error:
        others = {number: job for number, job in jobs.items() if number not in some}
        if not isinstance(theirs, Exception):
            with pytest.raises(REFUSED):
                by_hydra(loader, master, others)
                pytest.fail(f"{chosen}: {error}")
        counts["refused by both"] += 1
        return
    assert not isinstance(theirs, Exception), f"Hydra refuses {chosen}: {theirs}"
    assert len(composed) == len(jobs)
    for number, (config, launcher) in theirs.items():
        ours = (composed[number].config, composed[number].shape)
        assert ours == (settle_paths(config), launcher), f"{chosen}, run {number}"
        as_text = [json.dumps(both, sort_keys=True, default=str) for both in (ours, (config, launcher))]
        assert as_text[0] == as_text[1], f"{chosen}, run {number}: equal, but of other types"
    counts["compositions"] += len(theirs)
    counts["sweeps"] += 1


def sweeper_of(loader: Any, arguments: list[str], **options: Any) -> HarnessSweeper:
    master = loader.load_configuration("config", [*arguments, "hydra.mode=MULTIRUN"], RunMode.MULTIRUN)
    sweeper = HarnessSweeper(**options)
    sweeper.setup(hydra_context=HydraContext(loader, Callbacks()), task_function=lambda _: None, config=master)
    return sweeper


def configs_of(loader: Any, arguments: list[str], **options: Any) -> list[dict[str, Any]]:
    return sweeper_of(loader, arguments, **options).compose(arguments)[0]


def test_it_is_now_once_a_sweep(loader: Any) -> None:
    configs = configs_of(
        loader, ["runs=/x/${now:%H-%M-%S-%f}", "bank=${runs}/bank", "model=wrn16_2,wrn28_4", "seed=0,1"]
    )
    assert len(configs) == 4
    (folder,) = {config["runs"] for config in configs}
    assert {config["bank"] for config in configs} == {f"{folder}/bank"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            "runs=/x/${seed} seed=0,1",
            "runs is one for a whole sweep, and here it is /x/0 for one run and /x/1 for another",
        ),
        ("bank=a,b", """in quotes if it has a comma: 'bank="a,b"'"""),
        ("sweep.pack=1,2", "sweep is one for a whole sweep"),
        ("fail_fast=true,false", "fail_fast is one for a whole sweep"),
        ("+experiment=sweeps,plain", "hydra.sweeper is one for a whole sweep, and +experiment=sweeps would change it"),
        ("+experiment=plain,sets", "hydra.job.env_set is one for a whole sweep, and +experiment=sets would change it"),
        ("+experiment=calls,plain", "hydra.callbacks is one for a whole sweep"),
    ],
)
def test_what_belongs_to_a_sweep_is_no_business_of_its_runs(loader: Any, arguments: str, message: str) -> None:
    with pytest.raises(ConfigError) as refused:
        configs_of(loader, arguments.split())
    assert message in str(refused.value)


def test_a_swept_experiment_chooses_what_its_jobs_ask_for(loader: Any) -> None:
    arguments = ["+experiment=asks,asks_by_run", "seed=3,4", "train.epochs=11"]
    _, _, shapes = sweeper_of(loader, arguments).compose(arguments)
    assert [shape["timeout_min"] for shape in shapes] == [7, 7, 11, 11]
    assert [shape["name"] for shape in shapes] == ["harness", "harness", "a-3", "a-4"]
    assert launcher_of(shapes).endswith("SlurmLauncher"), "that of the runs, where they agree"
    arguments[0] = "+experiment=asks,plain"
    with pytest.raises(ConfigError, match="a sweep has one launcher"):
        launcher_of(sweeper_of(loader, arguments).compose(arguments)[2])


def test_params_are_values_and_not_what_python_calls_them(loader: Any) -> None:
    params = {
        "bank": None,
        "train.nesterov": False,
        "evaluate.ood": ["svhn"],
        "seed": "0,1",
        "study": {"a b": "c,d: e"},
    }
    configs = configs_of(loader, [], params=params)
    assert [config["seed"] for config in configs] == [0, 1]
    for config in configs:
        assert (config["bank"], config["train"]["nesterov"], config["evaluate"]["ood"]) == (None, False, ["svhn"])
        assert config["study"] == {"a b": "c,d: e"}


def test_params_that_read_what_is_swept_over_do_so_for_each_run_or_not_at_all(loader: Any) -> None:
    given = ["seed=1,2", "+hydra.sweeper.params={teachers.set:${seed}}"]
    sweeper = sweeper_of(loader, given, params={"teachers.set": 0})  # as Hydra resolves it
    with pytest.raises(ConfigError, match=r"hydra\.sweeper is one for a whole sweep"):
        sweeper.compose(given[:1])
    each = configs_of(loader, given[:1], params={"teachers.set": "${seed}"})
    assert [config["teachers"]["set"] for config in each] == [1, 2]


@pytest.mark.parametrize(
    "arguments",
    [
        "train.lr=0.1,0.2 tuned=null",
        "teachers.set=${seed} study={of:[${teachers.set}]}",
        "+experiment=reads train.warmup_epochs=${.epochs} study=null data.train=null",
        "hydra/launcher=gpu hydra.launcher.name=a-${seed}",
        "runs=/x/${now:%H} data.padding=1,2 evaluate.ood=[${oc.select:study.of,svhn}]",
    ],
)
def test_hydra_composes_one_run_of_each_kind(loader: Any, monkeypatch: pytest.MonkeyPatch, arguments: str) -> None:
    """It takes a twentieth of a second for each."""
    sweeper = sweeper_of(loader, given := [*arguments.split(), "method=kd,combined", "seed=range(9)"])
    composed = []
    compose = loader.load_sweep_config
    monkeypatch.setattr(loader, "load_sweep_config", lambda *given: composed.append(given) or compose(*given))
    assert len(sweeper.compose_runs(given)) >= 18
    assert len(composed) == 2


def test_a_plan_is_as_much_work_for_each_run_however_many_there_are(loader: Any) -> None:
    """In calls of functions."""

    def count(configs: list[dict[str, Any]]) -> int:
        calls = 0

        def note(frame: Any, event: str, about: Any) -> None:
            nonlocal calls
            calls += event == "call"

        sys.setprofile(note)
        try:
            make_plan(configs)
        finally:
            sys.setprofile(None)
        return calls

    configs = configs_of(loader, ["runs=/x", "method=kd", "seed=range(160)"])
    some, twice, again = (count(configs[:number]) for number in (40, 80, 160))
    assert again - twice == pytest.approx(2 * (twice - some), rel=0.1)


def test_random_sweeps_are_composed_as_hydra_would(loader: Any) -> None:
    counts: Counter = Counter()
    for number in range(SETS):
        own = random.Random(f"{SETS}/{number}")
        compare(loader, choose(own), own, counts)
    print(dict(counts))
    assert counts["compositions"] >= SETS, "most sets are sweeps"
