"""Deliberate errors, one at a time in a copy of the code: `python -m tests.mutations [PART OF A NAME ...]`.

Prints for each error which tests it turned red (the first of them); exit status 1 if one went unnoticed. Takes some
ten seconds an error; no test runs it. An error whose line was rewritten since is an error of this list, and said to be.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("harness", "methods", "sweeps", "tests")
TESTS = ("methods", "baselines_losses", "baselines_students", "reference", "golden", "properties", "diagnostics")
ENOUGH = 4  # red tests, after which an error counts as noticed


class Mutation(NamedTuple):
    """Replace `right`, which stands in the file exactly once, by `wrong`."""

    name: str
    file: str
    right: str
    wrong: str


DIVERSIFY, TRAINING = "methods/diversify.py", "harness/training/trainer.py"
BASELINES = "methods/baselines/"
LATENT_BE, RANK_ONE = "methods/latent_be.py", "methods/rank_one.py"
MUTATIONS = [
    # The losses
    Mutation("T^2 missing", "methods/losses.py", "temperature**2 * -(", "temperature * -("),
    Mutation("alpha blends wrongly", "methods/losses.py", "(1 - alpha) * label +", "label +"),
    Mutation(
        "logits averaged, not softmaxes",
        "methods/ensemble_kd.py",
        "soften(logits_MBK, self.temperature).mean(0)",
        "soften(logits_MBK.mean(0), self.temperature)",
    ),
    Mutation(
        "softmaxes averaged, not logits",
        "methods/ensemble_kd.py",
        "soften(logits_MBK.mean(0), self.temperature)",
        "soften(logits_MBK, self.temperature).mean(0)",
    ),
    Mutation(
        "members match other teachers",
        "methods/weight_averaging.py",
        "soften(teachers(images), self.temperature)",
        "soften(teachers(images).roll(1, 0), self.temperature)",
    ),
    Mutation("teachers in training mode", "methods/method.py", "network.eval().requires", "network.requires"),
    # Members
    Mutation("bias not under s", RANK_ONE, "(bias * s if self.db", "(0 * s + bias if self.db"),
    Mutation("bias not under s when merged", RANK_ONE, "bias * s.mean(0) if", "1 * bias if"),
    Mutation("factor M missing", LATENT_BE, '"lr_scale": float(self.members)', '"lr_scale": 1.0'),
    Mutation("decay of r, s not divided by M", LATENT_BE, "weight_decay / self.members", "weight_decay"),
    Mutation("decay of r, s always", LATENT_BE, 'if decay == "one" else 0.0', ""),
    Mutation("r and s begin at 1 always", LATENT_BE, 'if kind == "normal":', "if False:"),
    Mutation("merged by outer products always", RANK_ONE, 'if merge == "outer" else', "if True else"),
    Mutation("member-major order lost", LATENT_BE, "logits.unflatten(0, (self.members, -1))",
             "logits.unflatten(0, (-1, self.members)).transpose(0, 1)"),
    # Perturbations
    Mutation("sign of SDiv", DIVERSIFY, "value = value - cross", "value = value + cross"),
    Mutation("TDiv-SDiv without SDiv", "methods/combined.py", "student_term: bool = True", "student_term: bool = 0"),
    Mutation("pair in the other order", DIVERSIFY, "teacher(i), teacher(j)", "teacher(j), teacher(i)"),
    Mutation("student's pair in the other order", DIVERSIFY, "student(i), student(j)", "student(j), student(i)"),
    Mutation("gradient through the target", DIVERSIFY, "with torch.no_grad():", "with torch.enable_grad():"),
    Mutation("perturbed at T = 4", DIVERSIFY, "target_BK, 1.0)", "target_BK, 4.0)"),
    Mutation("student perturbed in training mode", LATENT_BE, "in tensors}).eval()", "in tensors})"),
    Mutation("norm over the batch", DIVERSIFY, "gradient.square().sum((1, 2, 3), keepdim=True)",
             "gradient.square().sum().expand(len(images), 1, 1, 1)"),
    Mutation("step without sqrt(D)", DIVERSIFY, "math.sqrt(values) * direction", "direction"),
    Mutation("step of fixed size", "methods/perturbation.py", "student_member), self.step)", "student_member), 1.0)"),
    Mutation("descent", DIVERSIFY, "(images + step", "(images - step"),
    Mutation("not clipped", DIVERSIFY, ".clamp(0, 1)", ""),
    Mutation("nan for a zero gradient", DIVERSIFY, "torch.where(norm > 0, norm, 1)", "norm"),
    Mutation("pairs not uniform", DIVERSIFY, "j + (j >= i)", "j + (j > i)"),
    Mutation("pair always drawn", "methods/perturbation.py", "self.pair or draw_pair", "draw_pair"),
    Mutation("clean images dropped", "methods/perturbation.py", "if self.keep_clean:", "if False:"),
    # Baselines
    Mutation("KL without T^2", "methods/losses.py", "temperature**2 * (torch.xlogy", "1 * (torch.xlogy"),
    Mutation("AE-KD without a cap", BASELINES + "ae_kd.py", "shortest(gradients_MK, self.cap)", "shortest(gradients_MK, 1.0)"),
    Mutation("AE-KD's gradient at T = 1", BASELINES + "ae_kd.py", "(soften(logits_BK.detach(), self.temperature)",
             "(soften(logits_BK.detach(), 1.0)"),
    Mutation("AE-KD's weight", BASELINES + "ae_kd.py", "weight: float = 0.9", "weight: float = 1.0"),
    Mutation("CA-MKD trusts who is wrong", BASELINES + "ca_mkd.py", "(1 - torch.softmax(losses, 0))", "torch.softmax(losses, 0)"),
    Mutation("CA-MKD's weights not divided", BASELINES + "ca_mkd.py", " / (len(logits) - 1)", ""),
    Mutation("DKD without T^2", BASELINES + "dkd.py", "self.temperature**2 * (self.label", "1 * (self.label"),
    Mutation("DKD's weights exchanged", BASELINES + "dkd.py", "self.label_class * against + self.other_classes * among",
             "self.label_class * among + self.other_classes * against"),
    Mutation("LSKD's student as it is", BASELINES + "lskd.py", "match(standardise(logits_BK),", "match(logits_BK,"),
    Mutation("LSKD's sd of K", BASELINES + "lskd.py", "logits.std(-1, keepdim=True)", "logits.std(-1, keepdim=True, correction=0)"),
    Mutation("EnD2's sign", BASELINES + "end2.py", "loss = -log_density", "loss = log_density"),
    Mutation("EnD2 stays warm", BASELINES + "end2.py", "2 - 3 * self.progress", "2 - 0 * self.progress"),
    Mutation("proxy entropy's sign", BASELINES + "proxy_end2.py", "likelihood_B + entropy", "likelihood_B - entropy"),
    Mutation("proxy's student without 1", BASELINES + "proxy_end2.py", ".double().exp() + 1", ".double().exp()"),
    Mutation("proxy deployed as logits", BASELINES + "proxy_end2.py", "F.softplus(", "("),
    Mutation("proxy's precision doubled", BASELINES + "proxy_end2.py", "/ (2 * spread_B)", "/ spread_B"),
    Mutation("Dirichlet entropy's sign", BASELINES + "dirichlet.py", "- ((alpha - 1) * alpha.digamma())",
             "+ ((alpha - 1) * alpha.digamma())"),
    Mutation("noise not clipped", BASELINES + "gaussian.py", ".clamp(0, 1)", ""),
    Mutation("ODS always of teacher 0", BASELINES + "ods.py", "teachers.member(m)", "teachers.member(0 * m)"),
    Mutation("ODS at T = 1", BASELINES + "ods.py", "(images), self.temperature)", "(images), 1.0)"),
    Mutation("ConfODS without confidence", BASELINES + "ods.py", "p_BK.amax(1)[", "p_BK.sum(1)["),
    Mutation("labels of moved images", BASELINES + "moved.py", "label_loss(clean,", "label_loss(moved,"),
    Mutation("a soup of one", BASELINES + "soup.py", "for other in others)])", "for other in [])])"),
    Mutation("soup's loss a mean", BASELINES + "soup.py", "len(teachers) * parts", "1 * parts"),
    Mutation("function matching at T = 4", BASELINES + "function_matching.py", "temperature: float = 1.0", "temperature: float = 4.0"),
    Mutation("mean of log-softmaxes", "methods/ensemble.py", "log_p.logsumexp(0) - math.log(len(log_p))", "log_p.mean(0)"),
    Mutation("own bias under s", RANK_ONE, "else bias + self.selection.of(self.db))", "else (bias + self.selection.of(self.db)) * s)"),
    Mutation("own bias decays", BASELINES + "unmerged.py", 'decay: str = "none"', 'decay: str = "one"'),
    # Training
    Mutation("perturbed images unused", TRAINING, "images, labels = self.method", "_, labels = self.method"),
    Mutation("no Nesterov", "harness/training/optimisation.py", "nesterov=nesterov", "nesterov=False"),
    Mutation("another schedule", "harness/training/optimisation.py", "math.cos(math.pi * t)", "math.cos(math.pi * t * t)"),
    Mutation("batch norm never re-estimated", TRAINING, "if self.method.reestimate_bn or", "if"),
    Mutation("mirrored crops shifted", "harness/training/data/augmentation.py", "width - 1 - self.x", "width - self.x"),
    # Networks and metrics
    Mutation("init cut but not rescaled", "harness/training/networks/preresnet.py", "/ cut_sd", ""),
    Mutation("shortcut after activation", "harness/training/networks/preresnet.py", "+ self.shortcut(x)",
             "+ self.shortcut(self.relu(self.norm1(x)))"),
    Mutation("bins closed on the left", "harness/evaluation/metrics.py", 'side="left"', 'side="right"'),
    Mutation("temperature fitted coarsely", "harness/evaluation/metrics.py", '"xatol": 1e-9', '"xatol": 1e-2'),
    Mutation("barrier below the line", "harness/evaluation/diagnostics.py", "loss - ((1 - t)", "loss + ((1 - t)"),
]  # fmt: skip


def run_tests(folder: Path) -> list[str]:
    """Names of the tests that are red in a copy of the code. Raises RuntimeError where they could not run."""
    files = [str(path) for name in TESTS for path in sorted(Path(folder, "tests").rglob(f"test_{name}*.py"))]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}
    options = f"-q -p no:cacheprovider --tb=no -rfE --maxfail={ENOUGH}".split()
    command = [sys.executable, "-m", "pytest", *options, *files]
    ended = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    red = re.findall(r"^(?:FAILED|ERROR) tests/(?:\w+/)*(\S+)", ended.stdout, re.MULTILINE)
    if ended.returncode not in (0, 1) and not red:
        raise RuntimeError(ended.stdout + ended.stderr)
    return red


def judge(mutation: Mutation | None) -> list[str]:
    """The tests that a deliberate error, or none, turns red."""
    with tempfile.TemporaryDirectory() as scratch:
        for name in FOLDERS:
            shutil.copytree(ROOT / name, Path(scratch, name), ignore=shutil.ignore_patterns("__pycache__", "slurm"))
        shutil.copy(ROOT / "pyproject.toml", scratch)
        if mutation is not None:
            path = Path(scratch, mutation.file)
            text = path.read_text()
            if text.count(mutation.right) != 1:
                raise ValueError(f"{mutation.file} has {text.count(mutation.right)} times {mutation.right!r}, not once")
            path.write_text(text.replace(mutation.right, mutation.wrong))
        return run_tests(Path(scratch))


def describe(red: list[str]) -> str:
    counts = Counter(name.split(".py")[0] for name in red)
    shown = ", ".join(f"{file} {count}" for file, count in counts.items())
    return f"{shown}: {red[0].removeprefix('test_')}"


def main(wanted: list[str]) -> int:
    chosen = [m for m in MUTATIONS if not wanted or any(part.lower() in m.name.lower() for part in wanted)]
    if red := judge(None):
        print(f"red before any deliberate error: {describe(red)}")
        return 1
    unnoticed = 0
    for mutation in chosen:
        try:
            red = judge(mutation)
            found = describe(red) if red else "NOT NOTICED"
        except ValueError as error:
            red, found = [], f"NOT TRIED: {error}"
        unnoticed += not red
        print(f"{mutation.name:<36} {found}", flush=True)
    print(f"{len(chosen)} deliberate errors, {unnoticed} not noticed")
    return int(bool(unnoticed))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
