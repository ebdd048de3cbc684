"""Arrays of candidates, (N, K, D) with (N, K, 1) rewards, mapped from disk: the layout of the Reusing-Embeddings release."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from embedrm.errors import DataError, InvalidInputError
from embedrm.numerics.digest import array_digest
from embedrm.preferences import EmbeddedResponses

_SAMPLED_ROWS = 64


def release_paths(folder: str | Path, name: str, split: str) -> tuple[Path, Path]:
    """Return where the release keeps vectors and rewards: ``embd_NAME_SPLIT.npy`` and ``reward_NAME_SPLIT.npy``.

    Its names are ``GENERATOR_EMBEDDER_TASK``, such as ``Gemma2b-sft_Gemma2b_Harmless``.
    """
    where = Path(folder)
    return where / f"embd_{name}_{split}.npy", where / f"reward_{name}_{split}.npy"


def load_release(folder: str | Path, name: str, split: str) -> EmbeddedResponses:
    """Map the vectors and rewards of one setting and split; see :func:`release_paths` and :func:`map_candidates`."""
    vectors, rewards = release_paths(folder, name, split)
    return map_candidates(vectors, rewards, split=split, domain=name)


def map_candidates(
    vectors: str | Path | NDArray[Any],
    rewards: str | Path | ArrayLike | None = None,
    *,
    split: str = "",
    domain: str = "default",
    view: str = "response:final",
) -> EmbeddedResponses:
    """Make candidates of an array of K response vectors for each of N prompts, without copying or reading them.

    Parameters
    ----------
    vectors : path of an .npy file, or ndarray, of shape (N, K, D)
        float32, float64 or float16. A file is mapped read-only: its pages are read when they are needed and given back
        when the system needs them.
    rewards : path of an .npy file, or array-like, of shape (N, K, 1) or (N, K), optional
        Gold; held in memory as float64. NaN where absent.
    split : str
        Of every prompt, so that pairs drawn from several arrays keep to one: "train", "validation", "test".
    domain : str
        Of every prompt.
    view : str
        Name of the vectors' view.

    Returns
    -------
    EmbeddedResponses
        Row ``i * K + j`` is candidate j of prompt i. Without pairs: 500 candidates have 124,750 a prompt. Draw those that
        are wanted, or take all with ``EmbeddedPreferences.from_arrays(vectors, rewards=rewards)``.
        ``info["data"]["fingerprint"]`` is of the shape, of all rewards and of some rows of the vectors (64, evenly spaced),
        since an array may be larger than memory.

    Raises
    ------
    DataError
        Where a file is not there or is no .npy file; archives (.npz) cannot be mapped.
    InvalidInputError
        For arrays of another shape or type, and for those that a row-by-row view would have to copy.
    """
    array = _mapped(vectors, "vectors") if isinstance(vectors, (str, Path)) else vectors
    if not isinstance(array, np.ndarray) or array.ndim != 3 or 0 in array.shape:
        shape = getattr(array, "shape", type(array).__name__)
        raise InvalidInputError(
            f"map_candidates: vectors must be an array of shape (N, K, D), K responses to each of N prompts, got {shape}"
        )
    if array.dtype not in (np.float32, np.float64, np.float16):
        raise InvalidInputError(
            f"map_candidates: vectors must be float32, float64 or float16, got {array.dtype}; convert them first"
        )
    n, k, dim = array.shape
    if n > 1 and k > 1 and array.strides[0] != k * array.strides[1]:
        raise InvalidInputError(
            f"map_candidates: vectors of shape {array.shape} do not lie row by row (strides {array.strides}), and a "
            "matrix of them would be a copy; write them anew with numpy.save(path, numpy.ascontiguousarray(vectors))"
        )
    matrix = array.reshape(n * k, dim)
    gold = None if rewards is None else _gold(rewards, n, k)
    fingerprint = array_digest(
        {
            "shape": np.array(array.shape),
            "rows": np.asarray(matrix[np.unique(np.linspace(0, n * k - 1, _SAMPLED_ROWS).astype(np.intp))]),
            "gold": np.zeros(0) if gold is None else gold,
        }
    )
    name = str(Path(vectors).name) if isinstance(vectors, (str, Path)) else "array"
    return EmbeddedResponses(
        {view: matrix},
        np.repeat(np.arange(n), k),
        domain=np.full(n, domain),
        split=np.full(n, split),
        gold=gold,
        info={"data": {"name": name, "fingerprint": fingerprint, "sampled_rows": min(_SAMPLED_ROWS, n * k)}},
    )


def _gold(rewards: str | Path | ArrayLike, n: int, k: int) -> NDArray[np.float64]:
    array = np.asarray(_mapped(rewards, "rewards") if isinstance(rewards, (str, Path)) else rewards)
    if array.shape not in ((n, k, 1), (n, k)):
        raise InvalidInputError(
            f"map_candidates: rewards must have shape ({n}, {k}, 1) or ({n}, {k}), one number a vector, got {array.shape}"
        )
    if not (np.issubdtype(array.dtype, np.floating) or np.issubdtype(array.dtype, np.integer)):
        raise InvalidInputError(f"map_candidates: rewards must be numbers, got {array.dtype}")
    gold = array.astype(np.float64).reshape(-1)
    n_infinite = int(np.isinf(gold).sum())
    if n_infinite:
        raise InvalidInputError(
            f"map_candidates: rewards must be finite (or NaN where absent), got {n_infinite:,} infinite of {len(gold):,}"
        )
    return gold


def _mapped(path: str | Path, what: str) -> NDArray[Any]:
    """Map an .npy file read-only."""
    where = Path(path)
    if where.suffix == ".npz":
        raise DataError(
            f"{where}: {what} are expected in an .npy file, since members of an .npz archive cannot be mapped; write them "
            "with numpy.save"
        )
    try:
        found = np.load(where, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise DataError(f"{where}: there is no such file of {what}; an .npy file was expected") from None
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"{where}: {what} cannot be mapped as an .npy file: {error}") from None
    if not isinstance(found, np.ndarray):
        raise DataError(f"{where}: {what} are expected in an .npy file of one array, and an archive came")
    return found
