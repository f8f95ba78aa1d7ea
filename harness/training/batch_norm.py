"""Batch norm over the rows of all ranks, as one device would see them together.

torch's own (SyncBatchNorm) runs on GPUs alone; on CPUs the moments are averaged by torch.distributed's differentiable
all-reduce.
"""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed._functional_collectives import all_reduce  # which autograd and torch.compile know

NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


class HostBatchNorm(nn.modules.batchnorm._BatchNorm):
    """Mix-in for a batch norm of inputs [rows, C, ...] on CPUs; of the same number of rows on every rank."""

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x)
        self._check_input_dim(x)
        exact = x if x.dtype == torch.float64 else x.float()
        axes, shape = [0, *range(2, x.dim())], [1, -1, *[1] * (x.dim() - 2)]
        mean = average(exact.mean(axes))
        centred = exact - mean.view(shape)
        var = average(centred.square().mean(axes))
        self.remember(mean.detach(), var.detach(), dist.get_world_size() * x.numel() // x.shape[1])
        scale = (var + self.eps).rsqrt()
        y = centred * (scale if self.weight is None else scale * self.weight).view(shape)
        return (y if self.bias is None else y + self.bias.view(shape)).to(x.dtype)

    @torch.no_grad()
    def remember(self, mean: Tensor, var: Tensor, count: int) -> None:
        """Move the running statistics to those of a batch of so many values a channel, as torch does."""
        if not self.track_running_stats:
            return
        self.num_batches_tracked.add_(1)
        share = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean.to(self.running_mean), share)
        self.running_var.lerp_((var * (count / (count - 1))).to(self.running_var), share)


ON_HOST = {norm: type(f"Host{norm.__name__}", (HostBatchNorm, norm), {}) for norm in NORMS}


def average(values: Tensor) -> Tensor:
    """The mean over ranks; its gradient is that of all ranks' losses."""
    return all_reduce(values, "sum", dist.group.WORLD) / dist.get_world_size()


def synchronise(network: nn.Module) -> nn.Module:
    """The network with its batch norms synchronised, in place. Raises ValueError, naming what cannot be."""
    for name, module in network.named_modules():
        if not isinstance(module, nn.modules.batchnorm._BatchNorm):
            continue
        if type(module) not in NORMS:
            raise ValueError(f"{name} ({type(module).__name__}) is no batch norm that several devices can share")
        on_gpu = next(network.parameters()).device.type == "cuda"
        module.alone, module.process_group = type(module), None
        module.__class__ = nn.SyncBatchNorm if on_gpu else ON_HOST[type(module)]
    return network


def separate(network: nn.Module) -> nn.Module:
    """The network with ordinary batch norms again, in place."""
    for module in network.modules():
        if isinstance(module, (nn.SyncBatchNorm, HostBatchNorm)):
            module.__class__ = module.__dict__.pop("alone")
            del module.process_group
    return network
