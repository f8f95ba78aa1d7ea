"""A network on the images of a split: its logits, and its batch-norm statistics."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from harness.training.data import Split
from harness.training.data.augmentation import to_unit
from harness.training.data.files import FileImages
from harness.training.data.transfer import send
from harness.training.ranks import ALONE, Ranks


@torch.inference_mode()
def predict(network: nn.Module, split: Split, batch_size: int | None = None, ranks: Ranks = ALONE) -> Tensor:
    """Logits [N, K] in float32 of a split's images, in the network's current mode.

    Where a GPU's memory does not do, in smaller batches, with a line that says so. Of several ranks, which must all ask,
    each answers for some of the batches, the same to the last bit.
    """
    count, size = len(split), batch_size or batch_for(split.images)
    batches = math.ceil(count / size)
    if ranks.count == 1 or batches < ranks.count:
        return answer(network, split.images, slice(0, count), size)
    shares = ranks.slice(batches)
    mine = slice(size * shares.start, min(size * shares.stop, count))
    logits = answer(network, split.images, mine, size)
    found = logits.new_zeros(count, *logits.shape[1:])
    found[mine] = logits
    return ranks.sum(found)


def answer(network: nn.Module, images: Tensor | FileImages, rows: slice, size: int) -> Tensor:
    """The logits of some rows of images, so many at a time."""
    while True:
        try:
            parts = read_slice(images, rows, size)
            return torch.cat([network(to_unit(part)).float() for part in parts])
        except torch.OutOfMemoryError:
            if size == 1:
                raise
        # Out here the error is gone, and with it what its traceback held.
        torch.cuda.empty_cache()
        print(f"memory: the GPU is too full to evaluate {size} images at a time, trying fewer", file=sys.stderr)
        size = max(1, size // 2)


def batch_for(images: Tensor) -> int:
    """How many images to predict at a time: on a CPU as few as its caches like, which is twice as fast as 1000; on a GPU
    so many that it is busy and takes less memory than training steps do.
    """
    pixels, least = (100_000, 16) if images.device.type == "cpu" else (500_000, 64)
    return min(1000, max(least, pixels // math.prod(images.shape[-2:])))


@torch.no_grad()
def reestimate_batch_norm(network: nn.Module, split: Split, batch_size: int = 500, ranks: Ranks = ALONE) -> None:
    """Replace the running statistics of batch norms by means over the split's images, in place.

    Images come in a fixed random order: a set that is sorted by class would show every batch norm one class at a time.
    Batches are of about equal size, at most `batch_size`, and count by their size; each is seen by one rank.
    """
    norms = [m for m in network.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.track_running_stats]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.train()
    order = torch.randperm(len(split), generator=torch.Generator().manual_seed(0))
    parts, seen = order.tensor_split(math.ceil(len(order) / batch_size)), 0
    for images in read_parts(split.images, parts[ranks.rank :: ranks.count]):
        seen += len(images)
        for norm in norms:
            norm.momentum = len(images) / seen  # which makes the running mean one over all images so far
        network(to_unit(images))
    for statistics in [buffer for norm in norms if ranks.count > 1 for buffer in (norm.running_mean, norm.running_var)]:
        statistics.copy_(ranks.sum(statistics * (seen / len(split))))
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.num_batches_tracked.fill_(len(parts))  # by all ranks together
        norm.momentum = momentum
        norm.eval()


def read_parts(images: Tensor | FileImages, parts: Sequence[Tensor]) -> Iterator[Tensor]:
    """Images [B, C, H, W] of each part, a list of rows."""
    if isinstance(images, FileImages):
        return images.read(parts)
    return (images[send(rows, images.device)] for rows in parts)


def read_slice(images: Tensor | FileImages, rows: slice, size: int) -> Iterator[Tensor]:
    """Images [B, C, H, W] of neighbouring rows, so many at a time."""
    if isinstance(images, FileImages):
        return images.read(torch.arange(len(images))[rows].split(size))
    return iter(images[rows].split(size))
