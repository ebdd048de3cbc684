"""The optimiser of the small language models: steps of one size in every direction, whatever the gradient's."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from embedrm.language_models.muon import Muon, onednn_product, orthogonal


def matrices(*shape, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape, dtype=np.float32))


PRODUCTS = {"plain": None}
if torch.backends.mkldnn.is_available():
    PRODUCTS["onednn"] = onednn_product()


@pytest.mark.parametrize("product", PRODUCTS.values(), ids=PRODUCTS)
class TestOrthogonal:
    def test_singular_vectors_stay_and_singular_values_come_near_1(self, product):
        for seed, shape in enumerate(((8, 20), (7, 7), (1, 5))):
            given = matrices(*shape, seed=seed)
            u, _, v = torch.linalg.svd(given.double(), full_matrices=False)
            inner = u.T @ orthogonal(given, product).double() @ v.T
            values = inner.diagonal()
            assert values.min() > 0.6
            assert values.max() < 1.3
            assert (inner - values.diag()).abs().max() < 1e-4

    def test_the_size_of_what_is_given_does_not_matter(self, product):
        given = matrices(5, 5)
        assert torch.allclose(orthogonal(given, product), orthogonal(1e4 * given, product), atol=1e-4)

    def test_nothing_stays_nothing(self, product):
        assert (orthogonal(torch.zeros(4, 6), product) == 0).all()

    def test_a_product_is_with_the_transposed(self, product):
        x, y = matrices(3, 4), matrices(5, 4, seed=1)
        if product is not None:
            assert torch.allclose(product(x, y), x @ y.T, atol=1e-5)
            assert torch.allclose(product(x, matrices(4, 5).T), x @ matrices(4, 5), atol=1e-5)


class TestSteps:
    def test_one_step_by_hand(self):
        """Nesterov's look ahead of the first gradient g is 1.95 g, whose direction is that of g."""
        for shape in ((4, 9), (9, 4)):
            weight = torch.nn.Parameter(matrices(*shape))
            before, gradient = weight.detach().clone(), matrices(*shape, seed=1)
            weight.grad = gradient.clone()
            Muon([weight], momentum=0.95, weight_decay=0.1).step(0.01)
            wide = gradient if shape[0] < shape[1] else gradient.T
            step = orthogonal(wide)
            step = step if shape[0] < shape[1] else step.T
            want = before * (1 - 0.01 * 0.1) - 0.01 * 0.2 * math.sqrt(9) * step
            assert torch.allclose(weight, want, atol=1e-5)
            assert weight.grad is None

    def test_matrices_do_not_mix(self):
        """Each as if it were alone, a tall one beside a wide one too."""
        shapes = [(3, 7), (7, 3), (3, 7), (5, 5)]
        together = [torch.nn.Parameter(matrices(*shape, seed=i)) for i, shape in enumerate(shapes)]
        alone = [torch.nn.Parameter(weight.detach().clone()) for weight in together]
        one = Muon(together, momentum=0.9, weight_decay=0.0)
        many = [Muon([weight], momentum=0.9, weight_decay=0.0) for weight in alone]
        for turn in range(3):
            for weights in (together, alone):
                for i, weight in enumerate(weights):
                    weight.grad = matrices(*weight.shape, seed=10 * turn + i)
            one.step(0.1)
            for each in many:
                each.step(0.1)
        for a, b in zip(together, alone):
            assert torch.allclose(a, b, atol=1e-5)

    def test_it_finds_a_minimum_that_is_badly_scaled(self):
        scale = torch.tensor([1.0, 100.0, 0.01, 1.0])[:, None]
        target = matrices(4, 6)
        weight = torch.nn.Parameter(torch.zeros(4, 6))
        muon = Muon([weight], momentum=0.9, weight_decay=0.0)
        for turn in range(300):
            (scale * (weight - target) ** 2).sum().backward()
            muon.step(0.2 * (1 - turn / 300))
        assert float((weight - target).abs().max().detach()) == pytest.approx(0, abs=0.05)
