"""The field's baselines against computations of their own, in numpy and scipy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from scipy.special import digamma, log_softmax, rel_entr, softmax
from scipy.stats import dirichlet

import methods
from methods.baselines.ae_kd import AEKD, shortest
from methods.baselines.dirichlet import entropy, log_density, mean_log
from methods.baselines.dkd import DKD, decouple
from methods.baselines.end2 import EnD2
from methods.baselines.moved import Moved
from methods.baselines.proxy_end2 import estimate_proxy
from methods.ensemble_kd import EnsembleKD

B, K = 6, 12
LABELS = torch.tensor([0, 3, 1, 11, 2, 0])
ROWS = np.arange(B)
WHOLE = ("soup", "hydra", "batch_ensemble", "latentbe_unmerged")  # one-to-one, of logits [M, B, K]
MOVED = [name for name in methods.BASELINES if issubclass(methods.load(name), Moved)]
LOSSES = ["ae_kd", "ca_mkd", "dkd", "lskd", "end2", "proxy_end2", "function_matching", *WHOLE]
sizes = pytest.mark.parametrize("members", [2, 8])


def draw(*shape: int, seed: int = 0, scale: float = 2.0) -> torch.Tensor:
    return scale * torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def case(name: str, members: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits of a method's student and of its teachers."""
    return draw(*([members] if name in WHOLE else []), B, K, seed=1), draw(members, B, K, seed=2)


class Answers:
    """Teachers who have answered already: logits [M, B, K]; images are numbers of rows."""

    def __init__(self, logits: torch.Tensor):
        self.logits = logits

    def __len__(self) -> int:
        return len(self.logits)

    def __call__(self, rows: torch.Tensor) -> torch.Tensor:
        return self.logits[:, rows]


def loss_of(method, logits: torch.Tensor, answers: torch.Tensor, labels: torch.Tensor = LABELS) -> torch.Tensor:
    return method.loss(torch.arange(len(labels)), labels, Answers(answers), lambda rows: logits[..., rows, :])["loss"]


# The losses, by their definitions


def label_term(z):
    return -log_softmax(z, -1)[..., ROWS, LABELS].mean()


def cross_entropy(p, z, temperature):
    return temperature**2 * -(p * log_softmax(z / temperature, -1)).sum(-1)


def divergence(t, z, temperature):
    """T^2 KL of every teacher and image, [M, B]."""
    p, q = softmax(t / temperature, -1), softmax(z / temperature, -1)
    return temperature**2 * rel_entr(p, np.broadcast_to(q, p.shape)).sum(-1)


def solve(vectors, cap):
    """Weights of the shortest combination of vectors [M, n], by a generic solver."""
    gram, count = vectors @ vectors.T, len(vectors)
    gram = gram / np.trace(gram)
    found = minimize(
        lambda w: w @ gram @ w,
        np.full(count, 1 / count),
        jac=lambda w: 2 * gram @ w,
        bounds=[(0, cap)] * count,
        constraints={"type": "eq", "fun": lambda w: w.sum() - 1, "jac": lambda w: np.ones(count)},
        method="SLSQP",
        options={"ftol": 1e-15, "maxiter": 1000},
    )
    return found.x


def ae_kd(z, t):
    gradients = [4.0 * (softmax(z / 4, -1) - softmax(each / 4, -1)).mean(0) for each in t]
    weights = solve(np.stack(gradients), 0.6)
    return label_term(z) + 0.9 * (weights * divergence(t, z, 4.0).mean(1)).sum()


def ca_mkd(z, t):
    losses = np.stack([-log_softmax(each, -1)[ROWS, LABELS] for each in t])
    weights = (1 - softmax(losses, 0)) / (len(t) - 1)
    return label_term(z) + (weights * divergence(t, z, 4.0)).sum(0).mean()


def dkd(z, t):
    p, q = softmax(t / 4, -1).mean(0), softmax(z / 4, -1)
    total = 0.0
    for row, label in enumerate(LABELS.tolist()):
        others = [k for k in range(K) if k != label]
        binary = [np.array([each[row, label], each[row, others].sum()]) for each in (p, q)]
        rest = [each[row, others] / each[row, others].sum() for each in (p, q)]
        total += rel_entr(*binary).sum() + 8 * rel_entr(*rest).sum()
    return 16 * total / B


def lskd(z, t):
    def standard(x):
        return (x - x.mean(-1, keepdims=True)) / (x.std(-1, ddof=1, keepdims=True) + 1e-7)

    return cross_entropy(softmax(standard(t) / 4, -1).mean(0), standard(z), 4.0).mean()


def end2(z, t):
    p = (1 - 1e-4) * softmax(t / 10, -1) + 1e-4 / K
    alpha = np.exp(z / 10)
    return -np.mean([dirichlet.logpdf(p[m, row], alpha[row]) for m in range(len(t)) for row in range(B)])


def proxy_end2(z, t):
    p = softmax(t, -1)
    mean = p.mean(0)
    spread = (mean * (np.log(mean) - np.log(p).mean(0))).sum(-1)
    precision = (K - 1) / (2 * spread)
    total = 0.0
    for row in range(B):
        alpha = np.exp(z[row]) + 1
        total -= (mean[row] * (digamma(alpha) - digamma(alpha.sum()))).sum()
        total -= dirichlet.entropy(alpha) / (precision[row] + K)
    return total / B


def one_to_one(z, t):
    return np.mean([cross_entropy(softmax(t[m] / 4, -1), z[m], 4.0).mean() for m in range(len(t))])


EXPECTED = {
    **{"ae_kd": ae_kd, "ca_mkd": ca_mkd, "dkd": dkd, "lskd": lskd, "end2": end2, "proxy_end2": proxy_end2},
    "function_matching": lambda z, t: cross_entropy(softmax(t, -1).mean(0), z, 1.0).mean(),
    **dict.fromkeys(WHOLE, one_to_one),
    "soup": lambda z, t: len(t) * one_to_one(z, t),
}


@sizes
@pytest.mark.parametrize("name", LOSSES)
def test_a_loss_is_what_it_is_defined_to_be(name, members):
    z, t = case(name, members)
    expected = EXPECTED[name](z.numpy(), t.numpy())
    torch.testing.assert_close(float(loss_of(methods.load(name)(), z, t)), expected, rtol=1e-6, atol=0)


@pytest.mark.parametrize("name", [name for name in LOSSES if "alpha" in methods.load(name).__dataclass_fields__])
def test_alpha_blends_in_the_label(name):
    z, t = case(name, 2)
    if name in MOVED:  # which shows the student the drawn images, too
        z, t = torch.cat([draw(B, K, seed=3), z]), torch.cat([draw(2, B, K, seed=4), t], 1)
    method, labels = methods.load(name)(alpha=0.75), LABELS.repeat(2) if name in MOVED else LABELS
    found = loss_of(method, z, t, labels)
    z, label = (z[B:], z[:B]) if name in MOVED else (z, z)
    t = t[:, -B:]
    # The sum of M losses, of one of which the label's share is a mean.
    scale = 2 if name == "soup" else 1
    expected = 0.25 * scale * label_term(label.numpy()) + 0.75 * EXPECTED[name](z.numpy(), t.numpy())
    torch.testing.assert_close(float(found), expected, rtol=1e-6, atol=0)


@sizes
@pytest.mark.parametrize("name", [name for name in LOSSES if name != "ae_kd"])
def test_gradients_are_those_of_the_loss(name, members):
    z, t = case(name, members)
    assert torch.autograd.gradcheck(lambda z: loss_of(methods.load(name)(), z, t), z.requires_grad_())


@sizes
def test_weights_take_no_part_in_ae_kds_gradient(members):
    z, t = case("ae_kd", members)
    (found,) = torch.autograd.grad(loss_of(AEKD(weight=1.0), z.requires_grad_(), t), z)
    q = softmax(z.detach().numpy() / 4, -1)
    gradients = 4.0 * (q - softmax(t.numpy() / 4, -1)) / B
    weights = solve(gradients.mean(1), 0.6)
    label = (softmax(z.detach().numpy(), -1) - np.eye(K)[LABELS]) / B
    torch.testing.assert_close(found.numpy(), label + np.einsum("m,mbk->bk", weights, gradients), rtol=1e-4, atol=1e-6)


@sizes
@pytest.mark.parametrize("name", LOSSES)
def test_losses_of_half_precision_are_computed_in_more(name, members):
    z, t = (values.bfloat16() for values in case(name, members))
    method = methods.load(name)()
    found, exact = loss_of(method, z, t.float()), loss_of(method, z.double(), t.double())
    assert found.dtype != torch.bfloat16
    torch.testing.assert_close(found.double(), exact, rtol=1e-4, atol=1e-5)


@sizes
@pytest.mark.parametrize("name", LOSSES)
def test_the_order_of_teachers_means_nothing(name, members):
    """But for whom member m matches."""
    z, t = case(name, members)
    order = torch.arange(members).roll(1)
    method = methods.load(name)()
    permuted = loss_of(method, z[order] if name in WHOLE else z, t[order])
    torch.testing.assert_close(loss_of(method, z, t), permuted, rtol=1e-8, atol=0)
    if name in WHOLE:
        assert abs(float(loss_of(method, z, t[order]) / permuted) - 1) > 1e-6


@pytest.mark.parametrize("name", ["ca_mkd", "ae_kd", "dkd", "soup"])
def test_labels_may_be_distributions(name):
    z, t = case(name, 3)
    method, certain = methods.load(name)(), torch.eye(K, dtype=torch.float64)[LABELS]
    torch.testing.assert_close(loss_of(method, z, t, certain), loss_of(method, z, t))


@pytest.mark.parametrize("off", [0, 1])
@pytest.mark.parametrize("name", LOSSES)
def test_certain_teachers_leave_numbers(name, off):
    """Their softmaxes are exactly 0 and 1, of the label or, in part, of another class."""
    z, _ = case(name, 3)
    classes = (LABELS + off * torch.arange(3)[:, None]) % K
    certain, z = 2e3 * torch.eye(K)[classes], z.float().requires_grad_()
    loss = loss_of(methods.load(name)(), z, certain)
    (gradient,) = torch.autograd.grad(loss, z)
    assert torch.isfinite(loss) and torch.isfinite(gradient).all()


@pytest.mark.parametrize("name", ["ae_kd", "ca_mkd"])
def test_the_label_counts_once_whatever_the_weight(name):
    z, t = case(name, 3)
    label, one, three = (float(loss_of(methods.load(name)(weight=weight), z, t)) for weight in (0, 1, 3))
    assert label == pytest.approx(label_term(z.numpy())) and three - label == pytest.approx(3 * (one - label))


def test_the_weights_of_dkd_are_of_its_two_parts():
    z, t = case("dkd", 2)
    against, among = decouple(z / 4, torch.softmax(t / 4, -1).mean(0), LABELS)
    for weights in ((1.0, 0.0), (0.0, 1.0), (2.0, 3.0)):
        found = loss_of(DKD(label_class=weights[0], other_classes=weights[1]), z, t)
        torch.testing.assert_close(found, 16 * (weights[0] * against + weights[1] * among).mean())


# What they are made of


@pytest.mark.parametrize("classes", [2, 10, 100])
def test_dirichlet_distributions_are_scipys(classes):
    alpha, p = draw(4, classes).exp() + 0.05, softmax(draw(4, classes, seed=1).numpy(), -1)
    for row in range(4):
        given = alpha[row].numpy()
        assert float(entropy(alpha)[row]) == pytest.approx(dirichlet.entropy(given), rel=1e-9)
        assert float(log_density(alpha, torch.tensor(np.log(p)))[row]) == pytest.approx(
            dirichlet.logpdf(p[row], given), rel=1e-9
        )
    drawn = np.log(dirichlet.rvs(np.array([2.0, 3.0, 5.0]), 200_000, random_state=0)).mean(0)
    np.testing.assert_allclose(mean_log(torch.tensor([2.0, 3.0, 5.0], dtype=torch.float64)), drawn, atol=0.01)


@pytest.mark.parametrize("scale", [1e3, 1e5, 1e8, 1e17, 1e80])
def test_the_entropy_of_a_sharp_dirichlet_is_no_noise(scale):
    """It is of a normal distribution then: scaling by c takes (K - 1)/2 log c. Its terms are 1e80 times as large."""
    alpha = (1 + draw(4, 10).exp()).requires_grad_()
    found = entropy(scale * alpha)
    if scale <= 1e5:
        expected = torch.tensor([dirichlet.entropy(row) for row in (scale * alpha.detach()).numpy()])
    else:
        expected = entropy(1e5 * alpha) - 4.5 * np.log(scale / 1e5)
    torch.testing.assert_close(found, expected.to(found), rtol=1e-9, atol=1e-6 if scale <= 1e5 else 1e-4)
    (slope,) = torch.autograd.grad(found.sum(), alpha)
    torch.testing.assert_close((slope * alpha).sum(1), torch.full((4,), -4.5, dtype=torch.float64), rtol=1e-3, atol=0)


@pytest.mark.parametrize(("members", "values"), [(2, 4), (3, 1), (4, 10), (8, 10), (8, 3)])
@pytest.mark.parametrize("cap", [0.6, 1.0, "1/M"])
def test_the_shortest_combination_is_a_generic_solvers(members, values, cap):
    cap = 1 / members if cap == "1/M" else cap
    for seed in range(3):
        vectors = draw(members, values, seed=seed) + draw(values, seed=99)
        weights = shortest(vectors, cap)
        assert float(weights.sum()) == pytest.approx(1, abs=1e-9) and 0 <= weights.min() <= weights.max() <= cap
        expected = np.linalg.norm(solve(vectors.numpy(), cap) @ vectors.numpy())
        assert float((weights @ vectors).norm()) == pytest.approx(expected, rel=1e-5, abs=1e-5)


def test_the_shortest_combination_of_two_has_a_closed_form():
    a, b = draw(2, 7)
    share = float((b @ (b - a)) / (a - b).square().sum())
    torch.testing.assert_close(shortest(torch.stack([a, b]), 1.0)[0], torch.tensor(min(max(share, 0), 1)).double())
    cross = torch.tensor([[1, 0], [0, 1], [-1, 0], [0, -1]], dtype=torch.float64)
    for vectors in (cross, 0 * cross):  # many are the shortest
        assert shortest(vectors, 0.6).tolist() == pytest.approx([0.25] * 4)


def test_dkd_is_kd_where_its_weights_say_so():
    """KD weighs the other classes by 1 - p of the label: where that is one number, the two are the same."""
    z, p = draw(B, K), torch.softmax(draw(B, K, seed=1), 1)
    p[ROWS, LABELS] = 0
    p = 0.3 * p / p.sum(1, keepdim=True)
    p[ROWS, LABELS] = 0.7
    against, among = decouple(z, p, LABELS)
    torch.testing.assert_close(
        against + 0.3 * among, torch.nn.functional.kl_div(z.log_softmax(1), p, reduction="none").sum(1)
    )
    answers, z = 4 * p.log()[None], z.requires_grad_()
    (ours,) = torch.autograd.grad(loss_of(DKD(other_classes=0.3), z, answers), z)
    (kds,) = torch.autograd.grad(loss_of(EnsembleKD(), z, answers), z)
    torch.testing.assert_close(ours, kds)


def test_teachers_drawn_from_a_dirichlet_have_about_its_precision():
    alpha = np.array([30.0, 50.0, 20.0])
    drawn = np.log(dirichlet.rvs(alpha, 20_000, random_state=0))
    mean, precision = estimate_proxy(torch.tensor(drawn)[:, None])
    np.testing.assert_allclose(mean[0], alpha / 100, atol=1e-3)
    assert float(precision) == pytest.approx(100, rel=0.05)
    same = torch.tensor(drawn[:1]).expand(3, -1)[:, None]
    assert torch.isfinite(estimate_proxy(same)[1]).all()


def test_end2_cools_to_one():
    method = EnD2()
    temperatures = []
    for method.progress in (0.0, 0.3, 0.5, 0.7, 0.99):
        temperatures.append(method.cool())
    assert temperatures == pytest.approx([10, 10, 5.5, 1, 1])
    z, t = case("end2", 2)
    p = (1 - 1e-4) * softmax(t.numpy(), -1) + 1e-4 / K
    expected = -np.mean([dirichlet.logpdf(p[m, r], np.exp(z[r].numpy())) for m in range(2) for r in range(B)])
    assert float(loss_of(method, z, t)) == pytest.approx(expected, rel=1e-6)
