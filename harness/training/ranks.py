"""The processes of one training, its ranks: each computes its rows of every batch, and all take the same steps.

One device cuts a batch into parts (`train.accumulate`) that go through the networks one after the other; each part is cut
into equal shares here, one a rank. What is a mean over images (losses, gradients, batch-norm statistics) so is the mean of
the ranks' means: their number changes no more than rounding.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Sequence
from datetime import timedelta
from inspect import signature
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from harness.runtime import patience
from harness.training import batch_norm

Item, Found = TypeVar("Item"), TypeVar("Found")

# Buffers are the same on all ranks: batch norms see to it. By torch's version.
KEEP_BUFFERS = "forward_sync_buffers"
KEEP_BUFFERS = KEEP_BUFFERS if KEEP_BUFFERS in signature(DistributedDataParallel).parameters else "broadcast_buffers"


class Ranks:
    """A training of one process; Group is one of several."""

    rank, count = 0, 1

    def own(self, rows: Tensor, parts: int) -> Tensor:
        """This rank's of the rows [..., B] of batches that are trained on in so many parts: [..., B / count]."""
        return rows

    def whole(self, values: Tensor, parts: int) -> Tensor:
        """A batch's values [B, ...], of each rank's own [B / count, ...]."""
        return values

    def mean(self, values: Tensor) -> Tensor:
        """The mean over ranks of values that each has its own of."""
        return values

    def any(self, asked: bool) -> bool:
        """Whether any rank was asked, which all answer alike, when each is at the same step. Of several, not at once but
        when they are next asked: nobody waits for the others.
        """
        return asked

    def slice(self, count: int) -> slice:
        """Which of so many things this rank does, where each does some."""
        return slice(0, count)

    def sum(self, values: Tensor) -> Tensor:
        """The sum over ranks of values that each has its own of."""
        return values

    def each(self, work: Callable[[Item], Found], items: Sequence[Item]) -> list[Found]:
        """What work makes of every item, done by one rank as one device would, and known to all: nothing of a device."""
        return [work(item) for item in items]

    def copy(self, value: Any) -> Any:
        """What rank 0 has, for all."""
        return value

    def synchronise(self, network: nn.Module) -> nn.Module:
        """The network with batch norms that know the whole batch. Raises ValueError, naming what cannot."""
        return network

    def replicate(self, student: nn.Module) -> nn.Module | None:
        """The student as losses see it: its gradients are means over ranks; None: the student itself."""
        return None

    def apart(self, replica: nn.Module | None) -> contextlib.AbstractContextManager:
        """No traffic of gradients in here, where more are to be added to them."""
        return contextlib.nullcontext()


ALONE = Ranks()


class Group(Ranks):
    """One of several ranks, once torch.distributed's process group is there: gloo for what lies on the host."""

    def __init__(self) -> None:
        self.rank, self.count = dist.get_rank(), dist.get_world_size()
        self.asked: tuple[Tensor, dist.Work] | None = None

    def own(self, rows: Tensor, parts: int) -> Tensor:
        return rows.unflatten(-1, (parts, self.count, -1))[..., self.rank, :].flatten(-2)

    def whole(self, values: Tensor, parts: int) -> Tensor:
        values = values.contiguous()
        shares = [torch.empty_like(values) for _ in range(self.count)]
        dist.all_gather(shares, values)
        return torch.stack(shares).unflatten(1, (parts, -1)).transpose(0, 1).flatten(0, 2)

    def mean(self, values: Tensor) -> Tensor:
        return self.sum(values) / self.count

    def any(self, asked: bool) -> bool:
        before, answers = self.asked, torch.tensor([asked], dtype=torch.int32)
        self.asked = answers, dist.all_reduce(answers, dist.ReduceOp.MAX, async_op=True)
        if before is None:
            return False
        before[1].wait()
        return bool(before[0])

    def slice(self, count: int) -> slice:
        return slice(count * self.rank // self.count, count * (self.rank + 1) // self.count)

    def sum(self, values: Tensor) -> Tensor:
        values = values.clone()
        dist.all_reduce(values)
        return values

    def each(self, work: Callable[[Item], Found], items: Sequence[Item]) -> list[Found]:
        found: list[list[Found]] = [[]] * self.count
        dist.all_gather_object(found, [work(items[k]) for k in range(self.rank, len(items), self.count)])
        return [found[k % self.count][k // self.count] for k in range(len(items))]

    def copy(self, value: Any) -> Any:
        values = [value]
        dist.broadcast_object_list(values)
        return values[0]

    def synchronise(self, network: nn.Module) -> nn.Module:
        return batch_norm.synchronise(network)

    def replicate(self, student: nn.Module) -> nn.Module | None:
        return Replica(student, gradient_as_bucket_view=True, **{KEEP_BUFFERS: False})

    def apart(self, replica: nn.Module | None) -> contextlib.AbstractContextManager:
        return replica.no_sync()


class Replica(DistributedDataParallel):
    """A student whose gradients are means over ranks, sent while the rest is computed; all else is the student's own."""

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            if name == "module":
                raise
            return getattr(self.module, name)


def join(store: dist.Store, rank: int, count: int, device: torch.device) -> Group:
    """Make this process a rank. Raises RuntimeError where the others do not come."""
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    timeout = timedelta(seconds=patience.of_ranks())
    dist.init_process_group(backend, store=store, rank=rank, world_size=count, timeout=timeout)
    return Group()


def leave() -> None:
    """End this process's part in its group; nobody waits for the others."""
    if dist.is_initialized():
        dist.destroy_process_group()


@torch.no_grad()
def find_drawing(network: nn.Module, images: Tensor) -> Sequence[str]:
    """The layers that draw random numbers when they are trained, by name: ranks would draw others than one device does.

    images [B, C, H, W]: any.
    """
    network, found = copy.deepcopy(network), []  # what it remembers of these images is forgotten
    state = _random_state(images.device)

    def after(name: str) -> Any:
        def look(*_: Any) -> None:
            nonlocal state
            if not torch.equal(now := _random_state(images.device), state):
                found.append(name)
                state = now

        return look

    hooks = [module.register_forward_hook(after(name)) for name, module in network.named_modules()]
    try:
        network.train()(images)
    finally:
        for hook in hooks:
            hook.remove()
    return found


def find_unused(network: nn.Module, images: Tensor) -> Sequence[str]:
    """The parameters that answers do not depend on, by name: ranks would wait for their gradients.

    images [B, C, H, W]: any.
    """
    network = copy.deepcopy(network).train()
    network(images).sum().backward()
    return [name for name, value in network.named_parameters() if value.requires_grad and value.grad is None]


def _random_state(device: torch.device) -> Tensor:
    return torch.cuda.get_rng_state(device) if device.type == "cuda" else torch.get_rng_state()
