"""One thread for tiny models, and the base and data that most tests share."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from tuning_base import make_base, make_preferences

from embedrm import PreferenceDataset


@pytest.fixture(scope="session", autouse=True)
def _one_torch_thread() -> Iterator[None]:
    """Models this small are slower on two threads."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def base_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny encoder's folder."""
    return make_base(tmp_path_factory.mktemp("tuning") / "base")


@pytest.fixture(scope="session")
def preferences() -> PreferenceDataset:
    """Eighty pairs over forty prompts of two domains."""
    return make_preferences()
