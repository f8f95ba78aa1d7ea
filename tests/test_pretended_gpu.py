"""The pretended GPU notices what a real one would wait for, and leaves torch as it was."""

from __future__ import annotations

import copy
import io

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tests.pretended_gpu import LAUNCH, SEND, TO_DEVICE, TO_HOST, WAIT, OnGPU, launches, pretending, waiting

ASKED = {
    "item": (lambda x: x.sum().item(), TO_HOST),
    "float": (lambda x: float(x.sum()), TO_HOST),
    "a condition": (lambda x: bool((x > 0).all()), TO_HOST),
    "tolist": (lambda x: x.tolist(), TO_HOST),
    "cpu": (lambda x: x.cpu(), TO_HOST),
    "to the CPU": (lambda x: x.to("cpu"), TO_HOST),
    "to a tensor of the CPU": (lambda x: x.to(torch.zeros(1)), TO_HOST),
    "copied into the CPU": (lambda x: torch.zeros(4, 3).copy_(x), TO_HOST),
    "equal": (lambda x: torch.equal(x, x), TO_HOST),
    "saved": (lambda x: torch.save(x, io.BytesIO()), TO_HOST),
    "a number made": (lambda x: torch.tensor(2.0, device=x.device), TO_DEVICE),
    "a number of its kind made": (lambda x: x.new_tensor(2.0), TO_DEVICE),
    "an array made": (lambda x: torch.as_tensor(np.ones(3), device="cuda"), TO_DEVICE),
    "moved": (lambda x: torch.zeros(3).to(x.device), TO_DEVICE),
    "moved to a tensor": (lambda x: torch.zeros(3).to(x), TO_DEVICE),
    "cuda": (lambda x: torch.zeros(3).cuda(), TO_DEVICE),
    "copied from the CPU": (lambda x: x.copy_(torch.zeros(4, 3)), TO_DEVICE),
    "an index of the CPU": (lambda x: x[torch.tensor([0, 1])], TO_DEVICE),
    "a list as an index": (lambda x: x[[0, 1]], TO_DEVICE),
    "not blocking, not pinned": (lambda x: torch.zeros(3).to(x.device, non_blocking=True), TO_DEVICE),
    "a mask": (lambda x: x[x > 0], WAIT),
    "a masked sum": (lambda x: x.masked_select(x > 0).sum(), WAIT),
    "values under a mask": (lambda x: x.index_put_((x[:, 0] > 1,), x[1:].clone()), WAIT),
    "nonzero": (lambda x: (x > 0).nonzero(), WAIT),
    "where": (lambda x: torch.where(x > 0), WAIT),
    "unique": (lambda x: x.unique(), WAIT),
    "bincount": (lambda x: x.long().flatten().bincount(), WAIT),
    "repeats": (lambda x: x.repeat_interleave(torch.ones(4, dtype=torch.long, device="cuda"), 0), WAIT),
    "classes that are counted": (lambda x: F.one_hot(x.long()), TO_HOST),
    "synchronize": (lambda x: torch.cuda.synchronize(), WAIT),
}
QUIET = {
    "arithmetic": lambda x: (x + 1).mul_(2).sum(),
    "made there": lambda x: torch.arange(3, device=x.device) + torch.zeros(3, device="cuda"),
    "a number of the CPU": lambda x: x * torch.tensor(2.0),
    "gathered": lambda x: x[torch.zeros(2, dtype=torch.long, device=x.device)],
    "a number under a mask": lambda x: x.index_put_((x > 0,), torch.tensor(0.0)),
    "masked_fill": lambda x: x.masked_fill(x > 0, 0),
    "already there": lambda x: x.to("cuda").to(x.device, torch.float32).cuda(),
    "one_hot": lambda x: F.one_hot(x.long(), 12),
    "repeats of known number": lambda x: x.repeat_interleave(2, 0),
}
REFUSED = {
    "arithmetic": lambda x: x + torch.zeros(4, 3),
    "a sum into the CPU": lambda x: torch.zeros(()).add_(x.sum()),
    "cat": lambda x: torch.cat([x, torch.zeros(4, 3)]),
    "stack of numbers": lambda x: torch.stack([x.sum(), torch.tensor(0.0)]),
    "a layer": lambda x: nn.Linear(3, 2)(x),
    "an index of the CPU's tensor": lambda x: torch.zeros(4)[torch.zeros(2, dtype=torch.long, device=x.device)],
    "values of the CPU": lambda x: x.index_put_(
        (torch.zeros(4, dtype=torch.long, device=x.device),), torch.zeros(4, 3)
    ),
    "a draw by a generator of the CPU": lambda x: torch.rand(3, device=x.device, generator=torch.Generator()),
    "a mean over time": lambda x: torch._foreach_lerp_([x], [torch.zeros(4, 3)], 0.5),
}


@pytest.fixture
def gpu():
    with pretending() as gpu:
        yield gpu


def make(gpu) -> torch.Tensor:
    x = torch.arange(12.0).view(4, 3).to("cuda")
    gpu.events.clear()
    return x


@pytest.mark.parametrize("name", ASKED)
def test_what_the_host_waits_for_is_noticed(gpu, name):
    ask, kind = ASKED[name]
    ask(make(gpu))
    assert [event.kind for event in waiting(gpu.events)] == [kind], gpu.events
    assert waiting(gpu.events)[0].line.startswith("tests/test_pretended_gpu.py:")


@pytest.mark.parametrize("name", QUIET)
def test_what_nobody_waits_for_is_no_wait(gpu, name):
    assert isinstance(QUIET[name](make(gpu)), OnGPU)
    assert not waiting(gpu.events)


@pytest.mark.parametrize("name", REFUSED)
def test_devices_do_not_mix(gpu, name):
    with pytest.raises(RuntimeError, match="found cuda:0 and, on cpu"):
        REFUSED[name](make(gpu))


@pytest.mark.parametrize("look", [lambda x: x.numpy(), np.asarray])
def test_numpy_takes_no_tensor_of_a_gpu(gpu, look):
    with pytest.raises(TypeError, match=r"use Tensor\.cpu"):
        look(make(gpu))


def test_pinned_memory_is_sent(gpu):
    x = torch.zeros(3).pin_memory().to("cuda", non_blocking=True)
    x.copy_(torch.ones(3).pin_memory(), non_blocking=True)
    assert [event.kind for event in gpu.events if event.kind != LAUNCH] == [SEND, SEND]
    assert x.sum().item() == 3
    with pytest.raises(RuntimeError, match="cannot pin"):
        x.pin_memory()


def test_views_and_allocations_launch_nothing(gpu):
    x = make(gpu)
    x.view(12)[2:].unsqueeze(0).detach().T.unbind()
    torch.empty_like(x)
    assert not gpu.events
    x.relu_().contiguous(memory_format=torch.contiguous_format)
    assert launches(gpu.events) == {"relu_": 1}


def test_a_network_trains_to_the_same_weights():
    plain = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(16, 2))
    images, labels = torch.rand(5, 3, 4, 4), torch.tensor([0, 1, 1, 0, 1])

    def train(network, images, labels):
        optimiser = torch.optim.SGD(network.parameters(), 0.1, momentum=0.9, fused=True)
        for _ in range(3):
            F.cross_entropy(network(images), labels).backward()
            optimiser.step()
            optimiser.zero_grad()
        return network

    moved = copy.deepcopy(plain)
    train(plain, images, labels)
    with pretending() as gpu:
        first = moved[0].weight
        moved.to("cuda", memory_format=torch.channels_last)
        assert moved[0].weight is first  # as on a GPU, where a parameter changes its data
        gpu.events.clear()
        train(moved, *(x.to("cuda").detach() for x in (images, labels)))
        assert [event.kind for event in waiting(gpu.events)] == [TO_DEVICE, TO_DEVICE]
        assert launches(gpu.events)["convolution"] == 3
        assert all(p.device.type == "cuda" and p.grad is None for p in moved.parameters())
        buffer = io.BytesIO()
        torch.save(copy.deepcopy(moved).state_dict(), buffer)
    state = torch.load(io.BytesIO(buffer.getvalue()), weights_only=True)
    for name, value in plain.state_dict().items():
        torch.testing.assert_close(state[name], value)


def capture(work, *inputs):
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, pool=torch.cuda.graph_pool_handle()):
        return graph, work(*inputs)


def test_a_graph_repeats_what_it_captured(gpu):
    x, total, rate = (torch.full((3,), value, device="cuda") for value in (2.0, 0.0, 1.0))
    on_cpu = torch.tensor(10.0)
    factor = 5.0

    def work(x):
        y = x.square() * factor + on_cpu
        total.add_(y * rate)
        return y.view(3, 1)

    gpu.events.clear()
    graph, y = capture(work, x)
    assert not gpu.events and total.tolist() == [0, 0, 0]  # it was captured, and not done
    x.fill_(1), rate.fill_(2)
    factor, _ = 7.0, on_cpu.fill_(20)  # numbers of the host are what they were
    gpu.events.clear()
    graph.replay()
    assert launches(gpu.events) == {"graph": 1}
    assert y.flatten().tolist() == [15, 15, 15] and total.tolist() == [30, 30, 30]
    graph.replay()
    assert y.flatten().tolist() == [15, 15, 15] and total.tolist() == [60, 60, 60]


def test_a_graph_draws_anew(gpu):
    x = torch.ones(100, device="cuda")
    torch.manual_seed(0)
    expected = [F.dropout(x).tolist() for _ in range(2)]
    torch.manual_seed(0)
    graph, y = capture(F.dropout, x)
    found = []
    for _ in range(2):
        graph.replay()
        found.append(y.tolist())
    assert found == expected and found[0] != found[1]


@pytest.mark.parametrize("name", ASKED)
def test_a_graph_captures_nothing_that_waits(gpu, name):
    x = make(gpu)
    with pytest.raises(RuntimeError, match="previous error during capture") as raised:
        capture(ASKED[name][0], x)
    assert "not permitted when stream is capturing" in str(raised.value.__context__)
    x.sum().item()  # and then it captures no more


def test_torch_is_afterwards_as_it_was():
    def say():
        return [
            torch.cuda.is_available(),
            torch.cuda.synchronize,
            torch.accelerator.is_available(),
            torch.Tensor.pin_memory,
            torch.autocast.__init__,
            torch.inference_mode.__enter__,
            torch.backends.cudnn.benchmark,
            torch._C._only_lift_cpu_tensors(),
            torch.__future__.get_swap_module_params_on_conversion(),
        ]

    before = say()
    with pytest.raises(ValueError, match="planted"), pretending():  # however it ends
        torch.backends.cudnn.benchmark = True
        assert say() != before
        raise ValueError("planted")
    assert say() == before
    with torch.inference_mode():
        assert torch.zeros(1).is_inference()
