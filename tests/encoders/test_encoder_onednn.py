from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embedrm.encoders import SentenceEncoder
from embedrm.encoders.onednn import use_onednn


def available() -> bool:
    import torch

    return torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")


@pytest.fixture
def small(one_thread: None) -> Any:
    import torch

    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(24, 40), torch.nn.GELU(), torch.nn.Linear(40, 8, bias=False)).eval()


def outputs(model: Any) -> list[np.ndarray]:
    """Of inputs of several sizes and layouts: rows, batches of rows, a strided view."""
    import torch

    inputs = [torch.randn(n, 24, generator=torch.Generator().manual_seed(n)) for n in (1, 7, 33, 500)]
    inputs += [inputs[3].reshape(20, 25, 24), inputs[3].reshape(20, 25, 24)[:, 0], inputs[3].T.contiguous().T]
    with torch.inference_mode():
        return [model(x).numpy() for x in inputs]


def test_the_products_are_the_same(small: Any) -> None:
    import torch

    if not available():
        pytest.skip("this torch has no oneDNN operators")
    want = outputs(small)
    assert use_onednn(small, lambda: small(torch.ones(3, 24)))
    assert "forward" in vars(small[0])
    for got, wanted in zip(outputs(small), want):
        np.testing.assert_allclose(got, wanted, atol=1e-5)


def test_a_model_whose_answers_change_is_put_back(small: Any) -> None:
    import torch

    want = outputs(small)
    answers = iter([torch.ones(3), torch.zeros(3)])
    assert not use_onednn(small, lambda: next(answers))
    for got, wanted in zip(outputs(small), want):
        np.testing.assert_array_equal(got, wanted)


def test_a_model_that_reads_its_weights_itself_is_put_back() -> None:
    import torch

    class Direct(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = torch.nn.Linear(4, 4)

        def forward(self, x: Any) -> Any:
            return torch.nn.functional.linear(x, self.linear.weight)

    model = Direct().eval()
    x = torch.eye(4)
    want = model(x).detach().numpy()
    assert not use_onednn(model, lambda: model(x))
    np.testing.assert_array_equal(model(x).detach().numpy(), want)


@pytest.mark.parametrize("lack", ["switched off", "operators missing"])
def test_torch_without_it_works_too(
    tiny_folder: Path, texts: list[str], lack: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    want = SentenceEncoder(str(tiny_folder)).encode(texts, (1, "final"))
    if lack == "switched off":
        monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    else:
        monkeypatch.setattr(torch.ops, "mkldnn", object())
    encoder = SentenceEncoder(str(tiny_folder))
    got = encoder.encode(texts, (1, "final"))
    assert not any("forward" in vars(m) for m in encoder._load().model.modules())
    for layer in want:
        np.testing.assert_allclose(got[layer], want[layer], atol=1e-5)


def test_encoders_use_it(tiny_folder: Path) -> None:
    if not available():
        pytest.skip("this torch has no oneDNN operators")
    encoder = SentenceEncoder(str(tiny_folder))
    assert any("forward" in vars(m) for m in encoder._load().model.modules())
