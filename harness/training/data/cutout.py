"""CutOut (DeVries and Taylor 2017), batched on the device: a square of every image is hidden."""

from __future__ import annotations

import torch
from torch import Tensor

from harness.training.data.batches import Own, all_of
from harness.training.data.transfer import send


class CutOut:
    """A square of `side` pixels shows the set's mean colour, which the network's normalisation makes zero.

    Its centre is drawn from all pixels, so it may reach over the edge. size: height and width of the images; `mean` [C]
    lies on the device.
    """

    stream = "cutout"

    def __init__(self, side: int, size: tuple[int, int], mean: Tensor):
        self.side, self.size, self.mean = side, size, mean.view(-1, 1, 1)
        self.position = torch.arange(max(size), device=mean.device)

    def draw(
        self, generator: torch.Generator, steps: int, batch: int, device: torch.device, own: Own = all_of
    ) -> Tensor:
        """The upper left corners of every step's squares, [steps, 2, B]: y and x."""
        share = own(torch.rand((steps, 2, batch), generator=generator))
        return send((share * torch.tensor(self.size)[:, None]).long() - self.side // 2, device)

    def __call__(self, images: Tensor, labels: Tensor, draws: Tensor) -> tuple[Tensor, Tensor]:
        past = self.position - draws[..., None]  # [2, B, longer side]
        hidden_y, hidden_x = ((past >= 0) & (past < self.side)).unbind()
        height, width = self.size
        hidden = hidden_y[:, None, :height, None] & hidden_x[:, None, None, :width]
        return torch.where(hidden, self.mean, images), labels
