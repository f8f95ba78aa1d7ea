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
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch
from torch import nn

from harness import memory, networks, provenance, streams
from harness.bank import Bank
from harness.claim import Claim, Claimed
from harness.config import ConfigError, build_method, is_teacher, method_defaults, run_directory, run_hash
from harness.data import Dataset, load
from harness.data.changes import image_changes
from harness.evaluation import Evaluation, count_flops, judge_all
from harness.plan import teacher_configs
from harness.predictions import check_predictions, labels_of, predict_splits, write_predictions
from harness.progress import Console, RunLog
from harness.record import (
    RECORD,
    TRAINED,
    VERSION,
    DamagedRecord,
    answers,
    keep_trained,
    lacks,
    put_back_trained,
    read_record,
    settled,
    write_atomically,
    write_record,
)
from harness.training import Diverged, Interrupted, Stop, Trainer, Training, check_fit
from harness.views import CachedTeachers
from harness.weights import read_network, write_weights
from methods.method import Teachers

# Its layers are so small that threads only wait for each other, on a busy machine a hundred times longer than they work.
SMALL_MODEL = "preresnet_tiny"

Record = dict[str, Any]


def execute(
    config: dict[str, Any], console: Console, stop: Stop = lambda: False, retry_teachers: bool = True
) -> Record:
    """The record of a run: read where it is finished, else made, resuming from a checkpoint where there is one.

    Teachers that the bank lacks are trained; those that failed before, again, unless `retry_teachers` is False.
    `stop` is asked between steps whether to checkpoint and end. Raises Interrupted then, Claimed where another process
    is at the run (or took it over while this one was silent: nothing more is written then), Diverged, ConfigError, and
    whatever else went wrong; the record says so before it is raised.
    """
    directory = run_directory(config)
    force = config["force"] and not is_teacher(config)
    if not force and (record := finished(directory, config, console)):
        console.say(f"{directory.name}: already {record['status']}, not run again (force=true does)")
        return record
    device = choose_device(config["device"])
    make_writable(directory)
    with Claim(directory) as claim:
        if force:
            forget(directory)
        elif record := finished(directory, config, console):
            return record
        return Run(config, directory, claim, device, console, stop, retry_teachers).execute()


def finished(directory: Path, config: dict[str, Any], console: Console) -> Record | None:
    """The record of a run that need not run again: done, with all that is asked of it, or diverged, as it would again."""
    record = read_or_set_aside(directory, RECORD, console)
    return record if record is not None and answers(record, config["evaluate"]) else None


def read_or_set_aside(directory: Path, name: str, console: Console) -> Record | None:
    """A record, or None; a damaged one is set aside under another name, not trusted and not deleted."""
    try:
        return read_record(directory, name)
    except DamagedRecord as error:
        aside = directory / f"{name.removesuffix('.json')}.damaged-{time.strftime('%Y%m%d-%H%M%S')}.json"
        (directory / name).rename(aside)
        console.say(f"{error}; it is now {aside.name}, and the run starts again")
        return None


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
        retry_teachers: bool,
    ):
        self.config, self.directory, self.claim, self.device = config, directory, claim, device
        self.retry_teachers = retry_teachers
        self.console, self.stop = console, lambda: stop() or claim.lost()
        self.started = time.time()
        self.earlier: dict[str, Any] = {"attempts": 0, "wall_s": 0.0}
        # Without a limit every job of a node would start a thread for each of its cores, and they would trample.
        given = config["threads"] or (provenance.slurm() and int(os.environ.get("SLURM_CPUS_PER_TASK", 1)))
        if given or config["model"] == SMALL_MODEL:
            torch.set_num_threads(given or 1)
        self.method = build_method(config)
        self.fingerprint: str | None = None  # of the data, once they are loaded
        self.bank: Bank | None = None  # once its teachers are there
        self.teachers: Teachers | None = None
        provenance.code(), provenance.revision()  # now: the files may change while the run goes on

    def execute(self) -> Record:
        keep_trained(self.directory)
        trained = read_or_set_aside(self.directory, TRAINED, self.console)
        wanted = lacks(trained, self.config["evaluate"]) if trained else self.config["evaluate"]
        checkpoint = self.read_checkpoint()
        title = self.directory.name.rpartition("-")[0]
        epochs = self.config["train"]["epochs"]
        done = epochs if trained else checkpoint["epochs"] if checkpoint else 0
        self.log = RunLog(self.directory, self.console, title, epochs, done)
        try:
            self.data, self.fingerprint = load_cached(json.dumps(self.config["data"]), self.device, self.console)
            network = self.build_student()
            self.evaluation = Evaluation(self.config, wanted, self.data, self.console)
            for teacher in teacher_configs(self.config):
                self.await_teacher(teacher)
            self.bank = Bank(self.config, self.data, self.fingerprint, self.device)
            if trained:
                self.log.write("trained before, only evaluated")
                record = self.complete(trained)
            else:
                record = self.train(network, checkpoint)
            record["provenance"]["ended"] = timestamp(time.time())
            write_record(self.directory, record)
        except Exception as error:
            self.claim.check()  # whatever went wrong, the files of a new owner are left alone
            if trained:  # what it knew before is not lost
                put_back_trained(self.directory)
            status = {Interrupted: "interrupted", Diverged: "diverged"}.get(type(error), "failed")
            self.log.write(traceback.format_exc() if status == "failed" else f"{status}: {error}")
            if not trained:
                write_record(self.directory, self.record(status, error))
            raise
        finally:
            self.log.close()
        for name in ("checkpoint.pt", TRAINED):
            (self.directory / name).unlink(missing_ok=True)
        return record

    def train(self, network: nn.Module, checkpoint: dict[str, Any] | None) -> Record:
        """The record of a student that is trained, or trained on from a checkpoint, and judged."""
        self.teachers = self.bank.teachers(self.method, self.console, self.stop)
        self.started = time.time()  # what was trained or awaited for the bank is not this run's cost
        trainer = self.trainer()
        self.steps_per_epoch = trainer.steps_per_epoch
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)  # of earlier runs of this process
        training = trainer.start(network)
        if checkpoint:
            training.restore(checkpoint["training"])
            self.log.write(f"resumed at step {training.step}, attempt {self.earlier['attempts'] + 1}")
        trainer.run(training)
        return self.evaluate(trainer, training)

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

    def build_student(self) -> nn.Module:
        """The plain network that the student is made from. What cannot be trained is refused before teachers are."""
        config, data = self.config, self.data
        check_fit(config["train"], data)
        check_fit({**config["train"], **config["teachers"]["train"]}, data)
        stream = streams.generator(config["seed"], "init")
        try:
            network = networks.build(config["model"], data.classes, data.mean, data.sd, stream, data.size)
            network = network.to(self.device)
            factors = streams.generator(config["seed"], "factors")
            self.method.student(network, max(1, config["teachers"]["size"]), factors)
        except ValueError as error:
            raise ConfigError(f"model={config['model']}: {error}") from error
        return network

    # Teachers ----------------------------------------------------------------------------------------------------

    def await_teacher(self, config: dict[str, Any]) -> None:
        """Return when the teacher is in the bank: trained here, or by whoever holds the claim on it."""
        directory, said = run_directory(config), False
        while True:
            try:
                record = finished(directory, config, self.console) or (
                    None if self.retry_teachers else settled(directory)
                )
                if record is None:
                    record = execute(config, self.console, self.stop)
            except Diverged as error:  # the teacher's record says so; the student did nothing wrong
                raise RuntimeError(f"teacher {directory.name} has diverged: {error}") from error
            except Claimed as claimed:
                if not said:
                    self.console.say(f"waiting for teacher {directory.name}: {claimed}")
                    said = True
                if self.stop():
                    raise Interrupted("stopped while waiting for a teacher") from claimed
                continue
            if record["status"] != "done":
                raise RuntimeError(f"teacher {directory.name} has {record['status']}: {record['error']['message']}")
            if record["provenance"]["data"] != self.fingerprint:
                raise ConfigError(
                    f"teacher {directory.name} was trained on other data ({record['provenance']['data']}, now "
                    f"{self.fingerprint}); give these a bank of their own: bank=FOLDER"
                )
            return

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
        """Judge the chosen checkpoint, and write what the run leaves but its record."""
        training.student.load_state_dict(training.best.student)
        network = trainer.deploy(training.student)
        logits, labels = predict_splits(network, self.data), labels_of(self.data)
        record = self.record("done")
        record["metrics"] = found = judge_all(logits, labels, self.bank.logits())
        record["selection"] = {"epoch": training.best.epoch, "acc": training.best.acc}
        record["cost"] = self.cost(training, network)
        nll_ts = found["student"]["test"]["nll_ts"]
        record["diagnostics"] = self.evaluation.diagnose(training.student, network, self.bank, nll_ts, labels)
        record |= self.evaluation.try_elsewhere(network, self.bank)
        self.claim.check()
        write_predictions(self.directory, logits, labels)
        about = {"model": self.config["model"], "data": self.config["data"]["name"], "classes": str(self.data.classes)}
        write_weights(self.directory, network, about)
        record["cost"]["wall_s"] = self.wall()
        return record

    def complete(self, trained: Record) -> Record:
        """The record of a run that was trained before, with answers to what is asked of it since."""
        if trained["provenance"]["data"] != self.fingerprint:
            raise ConfigError(
                f"these data ({self.fingerprint}) are not those it was trained on ({trained['provenance']['data']})"
            )
        network = read_network(self.directory, self.config["model"], self.data).to(self.device)
        check_predictions(self.directory, network, self.data)
        found = self.evaluation.try_elsewhere(network, self.bank)
        before, now = trained["config"]["evaluate"], self.config["evaluate"]
        asked = {"shift": before["shift"] or now["shift"], "ood": list(dict.fromkeys([*before["ood"], *now["ood"]]))}
        source = provenance.describe(self.device)
        self.claim.check()
        return {
            **trained,
            "config": {**trained["config"], "evaluate": {**before, **asked}},
            "shift": found["shift"] or trained["shift"],
            "ood": {**(trained["ood"] or {}), **(found["ood"] or {})} or None,
            "provenance": {
                **trained["provenance"],
                "asked_later": {name: source[name] for name in ("git", "code", "host", "device", "command")},
            },
        }

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
                "teachers": self.bank.names if self.bank else [],
                "teacher_views": isinstance(self.teachers, CachedTeachers),
                "data": self.fingerprint,
            },
        }


def timestamp(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, timezone.utc).isoformat(timespec="seconds")
