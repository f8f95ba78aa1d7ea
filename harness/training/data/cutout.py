"""CutOut (DeVries and Taylor 2017), batched on the device: a square of every image is hidden."""

from __future__ import annotations

import torch
from torch import Tensor


class CutOut:
    """A square of `side` pixels shows the set's mean colour, which the network's normalisation makes zero.

    Its centre is drawn from all pixels, so it may reach over the edge. `mean` [C] lies on the device.
    """

    stream = "cutout"

    def __init__(self, side: int, mean: Tensor):
        self.side, self.mean = side, mean.view(-1, 1, 1)

    def draw(self, generator: torch.Generator, steps: int, batch: int, device: torch.device) -> Tensor:
        """Where the centres lie [steps, 2, B], in shares of the height and of the width."""
        return torch.rand((steps, 2, batch), generator=generator).to(device)

    def __call__(self, images: Tensor, labels: Tensor, draws: Tensor) -> tuple[Tensor, Tensor]:
        hidden_y, hidden_x = (
            self.hidden(share, length) for share, length in zip(draws, images.shape[-2:], strict=True)
        )
        return torch.where(hidden_y[:, None, :, None] & hidden_x[:, None, None, :], self.mean, images), labels

    def hidden(self, share: Tensor, length: int) -> Tensor:
        """[B, length]: which pixels along one side are hidden."""
        first = (share * length).long()[:, None] - self.side // 2
        position = torch.arange(length, device=share.device)
        return (position >= first) & (position < first + self.side)
