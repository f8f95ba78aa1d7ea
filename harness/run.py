"""One run, from configuration to record: claim the directory, train or resume, evaluate, write.

A teacher is a run like any other: a supervised one, in the bank's folder, with random streams of its own.
"""

from __future__ import annotations

import functools
import io
import json
import os
import pickle
import shutil
import time
import traceback
from collections.abc import Callable
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from harness import diagnostics, memory, metrics, networks, ood, provenance, shift, streams
from harness.claim import Claim, Claimed
from harness.config import (
    DATA,
    ConfigError,
    bank_folder,
    build_method,
    is_teacher,
    method_defaults,
    run_directory,
    run_hash,
    teacher_config,
)
from harness.data import Dataset, load
from harness.data.augmentation import Augmentation, count_views
from harness.data.changes import image_changes
from harness.progress import Console, RunLog
from harness.record import VERSION, DamagedRecord, read_record, write_atomically, write_record
from harness.remembered import Findings
from harness.training import Diverged, Interrupted, Trainer, Training, check_fit, predict
from harness.views import CachedTeachers, ViewCache, is_worth_it
from methods.method import Teachers

# Its layers are so small that threads only wait for each other, on a busy machine a hundred times longer than they work.
SMALL_MODEL = "preresnet_tiny"

Record = dict[str, Any]
Stop = Callable[[], bool]


def execute(config: dict[str, Any], console: Console, stop: Stop = lambda: False) -> Record:
    """The record of a run: read where it is finished, else made, resuming from a checkpoint where there is one.

    `stop` is asked between steps whether to checkpoint and end. Raises Interrupted then, Claimed where another process
    is at the run (or took it over while this one was silent: nothing more is written then), Diverged, ConfigError, and
    whatever else went wrong; the record says so before it is raised.
    """
    directory = run_directory(config)
    force = config["force"] and not is_teacher(config)
    if not force and (record := finished(directory, console)):
        console.say(f"{directory.name}: already {record['status']}, not run again (force=true does)")
        return record
    device = choose_device(config["device"])
    make_writable(directory)
    with Claim(directory) as claim:
        if force:
            forget(directory)
        elif record := finished(directory, console):
            return record
        return Run(config, directory, claim, device, console, stop).execute()


def finished(directory: Path, console: Console) -> Record | None:
    """The record of a run that need not run again: done, or diverged, which it would again.

    A damaged record is set aside under another name, not trusted and not deleted.
    """
    try:
        record = read_record(directory)
    except DamagedRecord as error:
        aside = directory / f"record.damaged-{time.strftime('%Y%m%d-%H%M%S')}.json"
        (directory / "record.json").rename(aside)
        console.say(f"{error}; it is now {aside.name}, and the run starts again")
        return None
    return record if record is not None and record["status"] in ("done", "diverged") else None


def forget(directory: Path) -> None:
    """Remove what an earlier run left, but not the claim on it."""
    for path in directory.iterdir():
        if not path.name.startswith(("claim", ".claim")):
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def make_writable(directory: Path) -> None:
    try:
        directory.mkdir(parents=True, exist_ok=True)
        probe = directory / f".probe.{os.getpid()}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise ConfigError(
            f"cannot write to {directory}: {error.strerror}; choose another folder with runs=FOLDER"
        ) from error


def choose_device(name: str) -> torch.device:
    """The device of a `device` option. Raises ConfigError where this machine has none such."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ConfigError(f"unknown device {name!r}; use auto, cpu, cuda or cuda:N") from error
    if device.type == "cuda" and (not torch.cuda.is_available() or (device.index or 0) >= torch.cuda.device_count()):
        raise ConfigError(f"device={name}: this machine has {torch.cuda.device_count()} usable GPUs; use device=cpu")
    if device.type not in ("cpu", "cuda"):
        raise ConfigError(f"device={name} is not supported; use auto, cpu, cuda or cuda:N")
    return device


@functools.lru_cache(maxsize=1)
def load_cached(key: str, device: torch.device, console: Console) -> tuple[Dataset, str]:
    """The data set on the device and its fingerprint; kept for the next run of this process."""
    data = load(json.loads(key), console)
    return data.to(device), data.fingerprint()


class Run:
    """One run in its claimed directory."""

    def __init__(
        self,
        config: dict[str, Any],
        directory: Path,
        claim: Claim,
        device: torch.device,
        console: Console,
        stop: Stop,
    ):
        self.config, self.directory, self.claim, self.device = config, directory, claim, device
        self.console, self.stop = console, lambda: stop() or claim.lost()
        self.started = time.time()
        self.earlier: dict[str, Any] = {"attempts": 0, "wall_s": 0.0}
        # Without a limit every job of a node would start a thread for each of its cores, and they would trample.
        given = config["threads"] or (provenance.slurm() and int(os.environ.get("SLURM_CPUS_PER_TASK", 1)))
        if given or config["model"] == SMALL_MODEL:
            torch.set_num_threads(given or 1)
        self.method = build_method(config)
        provenance.code(), provenance.revision()  # now: the files may change while the run goes on

    def execute(self) -> Record:
        checkpoint = self.read_checkpoint()
        title = self.directory.name.rpartition("-")[0]
        epochs, done = self.config["train"]["epochs"], checkpoint["epochs"] if checkpoint else 0
        self.log = RunLog(self.directory, self.console, title, epochs, done)
        try:
            self.data, self.fingerprint = load_cached(json.dumps(self.config["data"]), self.device, self.console)
            network = self.build_student()
            self.load_other_data()
            self.load_teachers()
            self.started = time.time()  # what was trained or awaited for the bank is not this run's cost
            trainer = self.trainer()
            self.steps_per_epoch = trainer.steps_per_epoch
            training = trainer.start(network)
            if checkpoint:
                training.restore(checkpoint["training"])
                self.log.write(f"resumed at step {training.step}, attempt {self.earlier['attempts'] + 1}")
            trainer.run(training)
            record = self.evaluate(trainer, training)
        except Exception as error:
            self.claim.check()  # whatever went wrong, the files of a new owner are left alone
            status = {Interrupted: "interrupted", Diverged: "diverged"}.get(type(error), "failed")
            self.log.write(traceback.format_exc() if status == "failed" else f"{status}: {error}")
            write_record(self.directory, self.record(status, error))
            raise
        finally:
            self.log.close()
        (self.directory / "checkpoint.pt").unlink(missing_ok=True)
        return record

    def trainer(self) -> Trainer:
        config = self.config
        return Trainer(
            method=self.method,
            data=self.data,
            teachers=self.teachers,
            recipe=config["train"],
            padding=config["data"]["padding"],
            flip=config["data"]["flip"],
            seed=config["seed"],
            changes=image_changes(config["data"], self.data),
            report=self.report,
            save=self.save,
            stop=self.stop,
        )

    def report(self, epoch: dict[str, Any]) -> None:
        self.claim.check()
        self.log.epoch(epoch)

    def build_network(self, model: str, seed: int | str) -> nn.Module:
        data = self.data
        stream = streams.generator(seed, "init")
        try:
            network = networks.build(model, data.classes, data.mean, data.sd, stream, data.size)
        except ValueError as error:
            raise ConfigError(str(error)) from error
        return network.to(self.device)

    def build_student(self) -> nn.Module:
        """The plain network that the student is made from. What cannot be trained is refused before teachers are."""
        config = self.config
        check_fit(config["train"], self.data)
        check_fit({**config["train"], **config["teachers"]["train"]}, self.data)
        network = self.build_network(config["model"], config["seed"])
        try:
            self.method.student(
                network, max(1, config["teachers"]["size"]), streams.generator(config["seed"], "factors")
            )
        except ValueError as error:
            raise ConfigError(f"model={config['model']}: {error}") from error
        return network

    def load_other_data(self) -> None:
        """What the student will be tried on beside the test split; it is refused before anything is trained."""
        wanted, data = self.config["evaluate"], self.config["data"]
        self.shift = shift.Shift(data, self.data.test) if wanted["shift"] else None
        self.others = {
            name: load({**asdict(DATA[name]), "root": data["root"], "download": data["download"]}, self.console)
            for name in wanted["ood"] or ()
        }

    # Teachers ----------------------------------------------------------------------------------------------------

    def load_teachers(self) -> None:
        """The teachers that the method learns from, and the logits of every teacher of the set."""
        self.teacher_names: list[str] = []
        self.teacher_logits: dict[str, np.ndarray] = {}
        size = 0 if self.method.teachers == 0 else self.config["teachers"]["size"]
        configs = [teacher_config(self.config, m) for m in range(size)]
        for config in configs:
            self.await_teacher(config)
        self.teacher_directories = directories = [run_directory(config) for config in configs]
        self.teacher_names = [directory.name for directory in directories]
        if directories:
            files = [np.load(directory / "predictions.npz") for directory in directories]
            for split in ("validation", "test"):
                self.teacher_logits[split] = np.stack([file[f"{split}_logits"] for file in files])
        used = directories if self.method.teachers is None else directories[: self.method.teachers]
        members = [self.load_teacher(directory) for directory in used]
        self.teachers = self.cache_teachers(members, used) or Teachers(members)

    def cache_teachers(self, members: list[nn.Module], directories: list[Path]) -> Teachers | None:
        """The teachers with their answers for every view of the train images, where that is worth it."""
        data, recipe, images = self.config["data"], self.config["train"], self.data.train.images
        if not isinstance(images, torch.Tensor) or recipe["mixup"] or image_changes(data, self.data):
            return None  # what is shown is no view that could be numbered
        wanted, views = self.config["teachers"]["cache"], count_views(data["padding"], data["flip"])
        if not is_worth_it(wanted, self.method, recipe["epochs"], len(images), views, self.data.classes):
            return None
        augmentation = Augmentation(images, data["padding"], data["flip"], self.config["seed"])
        cache = ViewCache(augmentation, self.data.classes, self.fingerprint, self.console, self.stop)
        try:
            answers = [
                cache.answers(directory, member.eval()).to(self.device)
                for directory, member in zip(directories, members, strict=True)
            ]
        except OSError as error:  # such as somebody else's bank, or a full disk
            self.console.say(f"the teachers' views cannot be kept in the bank, they are asked instead: {error}")
            return None
        return CachedTeachers(members, answers)

    def await_teacher(self, config: dict[str, Any]) -> None:
        """Return when the teacher is in the bank: trained here, or by whoever holds the claim on it."""
        said = False
        while True:
            try:
                record = finished(run_directory(config), self.console)
                if record is None:
                    record = execute(config, self.console, self.stop)
            except Claimed as claimed:
                if not said:
                    self.console.say(f"waiting for teacher {run_directory(config).name}: {claimed}")
                    said = True
                if self.stop():
                    raise Interrupted("stopped while waiting for a teacher") from claimed
                continue
            if record["status"] != "done":
                raise RuntimeError(f"teacher {run_directory(config)} has {record['status']}")
            return

    def load_teacher(self, directory: Path) -> nn.Module:
        from safetensors.torch import load_file

        network = self.build_network(self.config["teachers"]["model"] or self.config["model"], "teacher")
        network.load_state_dict(load_file(directory / "student.safetensors"))
        return network

    # Checkpoints -------------------------------------------------------------------------------------------------

    def save(self, training: Training) -> None:
        """Write the checkpoint; a reader sees the last one or this one, never a part. Raises TakenOver."""
        self.claim.check()
        buffer = io.BytesIO()
        torch.save(
            {
                "training": training.state(),
                "epochs": training.step // self.steps_per_epoch,
                "attempts": self.earlier["attempts"] + 1,
                "wall_s": self.wall(),
            },
            buffer,
        )
        write_atomically(self.directory / "checkpoint.pt", buffer.getvalue())

    def read_checkpoint(self) -> dict[str, Any] | None:
        """The checkpoint of an earlier attempt, or None; one that cannot be read is set aside."""
        path = self.directory / "checkpoint.pt"
        if not path.exists():
            return None
        try:
            checkpoint = torch.load(path, map_location="cpu", weights_only=True)
        except (RuntimeError, EOFError, OSError, ValueError, pickle.UnpicklingError) as error:
            path.rename(path.with_name("checkpoint.damaged.pt"))
            self.console.say(f"{path} is damaged ({type(error).__name__}); it is set aside, and the run starts again")
            return None
        self.earlier = {"attempts": checkpoint["attempts"], "wall_s": checkpoint["wall_s"]}
        return checkpoint

    def wall(self) -> float:
        return self.earlier["wall_s"] + time.time() - self.started

    # Evaluation and record ---------------------------------------------------------------------------------------

    def evaluate(self, trainer: Trainer, training: Training) -> Record:
        """Judge the chosen checkpoint; the test split is read here and nowhere else."""
        training.student.load_state_dict(training.best.student)
        network = trainer.deploy(training.student)
        logits = {name: predict(network, getattr(self.data, name)).cpu().numpy() for name in ("validation", "test")}
        labels = {name: getattr(self.data, name).labels.cpu().numpy() for name in logits}
        found = {"student": judge(logits, labels)}
        if self.teacher_logits:
            found["teacher"] = judge({name: values[0] for name, values in self.teacher_logits.items()}, labels)
            ensemble = {name: metrics.average(values) for name, values in self.teacher_logits.items()}
            found["ensemble"] = judge(ensemble, labels)
        record = self.record("done")
        record["metrics"] = found
        record["selection"] = {"epoch": training.best.epoch, "acc": training.best.acc}
        record["cost"] = self.cost(training, network)
        wanted = self.config["evaluate"]["diagnostics"]
        if self.config["data"]["name"] == "digits" if wanted is None else wanted:
            record["diagnostics"] = self.diagnose(training.student, network, found["student"]["test"]["nll_ts"], labels)
        if self.shift or self.others:
            bank = Teachers([self.load_teacher(directory) for directory in self.teacher_directories])
            remember = Findings(bank_folder(self.config) / "found", self.teacher_directories, self.fingerprint)
            record["shift"] = shift.evaluate(self.shift, network, bank, remember) if self.shift else None
            record["ood"] = ood.evaluate(self.others, self.data, network, bank, remember) if self.others else None
        self.claim.check()
        self.write_predictions(logits, labels)
        self.write_student(network)
        record["cost"]["wall_s"] = self.wall()
        record["provenance"]["ended"] = timestamp(time.time())
        write_record(self.directory, record)
        return record

    def diagnose(
        self, student: nn.Module, network: nn.Module, nll_ts: float, labels: dict[str, np.ndarray]
    ) -> dict[str, Any]:
        """The record's `diagnostics`; the whole teacher set takes part, however many the method learned from."""
        bank = Teachers([self.load_teacher(directory) for directory in self.teacher_directories])
        stream = streams.generator(self.config["seed"], "perturbation", -1)  # no training step has this number
        found = diagnostics.diagnose(student, network, bank, self.data, stream)
        found |= {"dee": None, "dee_cap": len(bank)}
        if bank.networks and self.config["teachers"]["model"] in (None, self.config["model"]):
            ladder = diagnostics.ensemble_ladder(self.teacher_logits, labels)
            found["dee"] = diagnostics.deep_ensemble_equivalent(nll_ts, ladder)
        return found

    def cost(self, training: Training, network: nn.Module) -> dict[str, float]:
        if self.device.type == "cuda":
            peak = torch.cuda.max_memory_allocated(self.device)
        else:
            peak = memory.peak_of_this_process()
        return {
            "wall_s": 0.0,
            "device_s": training.seconds,
            "images_per_s": training.step * self.config["train"]["batch_size"] / training.seconds,
            "peak_memory_bytes": peak,
            "parameters": sum(p.numel() for p in network.parameters()),
            "flops": count_flops(network, self.data.test.images[:1]),
        }

    def write_predictions(self, logits: dict[str, np.ndarray], labels: dict[str, np.ndarray]) -> None:
        """Logits less their maximum, which half precision then keeps to three digits where it matters."""
        buffer = io.BytesIO()
        arrays = {}
        for name in logits:
            arrays[f"{name}_logits"] = (logits[name] - logits[name].max(1, keepdims=True)).astype(np.float16)
            arrays[f"{name}_labels"] = labels[name]
        np.savez_compressed(buffer, **arrays)
        write_atomically(self.directory / "predictions.npz", buffer.getvalue())

    def write_student(self, network: nn.Module) -> None:
        from safetensors.torch import save

        state = {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
        about = {"model": self.config["model"], "data": self.config["data"]["name"], "classes": str(self.data.classes)}
        write_atomically(self.directory / "student.safetensors", save(state, about))

    def record(self, status: str, error: Exception | None = None) -> Record:
        seed = self.config["seed"]
        told = {
            "type": type(error).__name__,
            "message": str(error),
            "traceback": traceback.format_exc() if status == "failed" else None,
            "log": str((self.directory / "run.log").resolve()),
            "slurm_state": None,
        }
        return {
            "version": VERSION,
            "hash": run_hash(self.config),
            "status": status,
            "error": told if error else None,
            "config": self.config,
            "metrics": None,
            "diagnostics": None,
            "shift": None,
            "ood": None,
            "selection": None,
            "cost": {"wall_s": self.wall()},
            "provenance": {
                **provenance.describe(self.device),
                "method_defaults": method_defaults(self.config["method"]["name"]),
                "started": timestamp(self.started),
                "ended": timestamp(time.time()),
                "attempts": self.earlier["attempts"] + 1,
                "streams": {purpose: streams.derive(seed, purpose) for purpose in streams.PURPOSES},
                "teachers": getattr(self, "teacher_names", []),
                "teacher_views": isinstance(getattr(self, "teachers", None), CachedTeachers),
                "data": getattr(self, "fingerprint", None),
            },
        }


def judge(logits: dict[str, np.ndarray], labels: dict[str, np.ndarray]) -> dict[str, dict[str, float]]:
    """Metrics on both splits, at the temperature that suits the validation split."""
    temperature = metrics.fit_temperature(logits["validation"], labels["validation"])
    return {name: metrics.evaluate(logits[name], labels[name], temperature) for name in logits}


def count_flops(network: nn.Module, images: torch.Tensor) -> int:
    """Floating-point operations of one image through the network: two for each multiply-add."""
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(images.float() / 255)
    return counter.get_total_flops()


def timestamp(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, timezone.utc).isoformat(timespec="seconds")
