"""The checks that want a real GPU, in the order in which they run.

A sixteenth, runs an hour against `sweep.pack`, with MPS and without, is `python -m harness.bench.packing`.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Check:
    """A number and title for the page, and the function of a Sheet that does it."""

    number: int
    title: str
    body: str  # "module:function" of this folder
    limit_s: float = 60.0
    alone: bool = False  # it judges times, so that nothing else may run beside it

    def __str__(self) -> str:
        return f"{self.number:02}-{self.body.partition(':')[2]}"


# The long ones begin first.
CHECKS = (
    Check(8, "CUDA graphs: steps of combined as eagerly, few graphs", "compiling:replays_graphs", 150),
    Check(7, "torch.compile: kd after combined in one process, compiled", "compiling:compiles_run_after_run", 150),
    Check(12, "sweep.pack=4 gives the students of sweep.pack=1", "runs:packs", 150),
    Check(1, "no step of any method and options waits for the device", "steps:never_waits", 150),
    Check(3, "deterministic=true: stopped and resumed, bit for bit", "resuming:repeats_itself", 120),
    Check(9, "no layout conversions beyond the stem; launches as counted", "kernels:launches_as_counted", 120),
    Check(15, "CUDA_VISIBLE_DEVICES as a UUID and -1; workers do not show", "runs:chooses_its_device", 90),
    Check(13, "a network trained on the GPU is deployed on a CPU", "runs:deploys_on_a_cpu", 90),
    Check(14, "cached views: same targets, no copy in a step, a way out", "views:looks_up_views", 90),
    Check(10, "three runs in a process leave the data alone behind", "memory:leaves_the_data", 120),
    Check(2, "exact float32: losses of the CPU", "steps:computes_as_the_cpu"),
    Check(4, "checkpoints go on on the other kind of device", "resuming:crosses_devices"),
    Check(5, "a network with dropout resumes to the same losses", "resuming:resumes_dropout"),
    Check(11, "the recorded peak is that of a step", "memory:records_the_peak"),
    Check(6, "bench: no waits, little host, no more than the peak", "benching:measures_steps", 90, alone=True),
)
