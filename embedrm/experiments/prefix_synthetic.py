"""Token-pair matrices of full rank, identity and triangle: RAD can fit them, ARM is bounded by the size of a state."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from embedrm.decoding.arm import ARMHead
from embedrm.decoding.rad import RADHead
from embedrm.decoding.synthetic import MATRICES, fit_matrix
from embedrm.progress import Progress, silent

ARM_NAME, RAD_NAME, LINEAR_NAME = "ARM", "RAD, perceptron", "RAD, linear"
RANK_CUTOFF = 1e-2


def synthetic_facts(
    n_tokens: int = 24, dim: int = 8, epochs: int = 120, progress: Progress = silent
) -> list[dict[str, Any]]:
    """Fit ARM and RAD to each matrix; a row for each fit.

    Parameters
    ----------
    n_tokens : int
        Rank of the true matrices.
    dim : int
        Size of a state.
    epochs : int
        Of the perceptron.
    progress : Progress

    Returns
    -------
    list of dict
        ``matrix``, ``head``, ``error`` (root mean square), ``floor`` (the least that rank ``dim`` allows), ``rank`` (above
        1 % of the largest singular value), ``rank_rounding``, ``bound``, ``values``.
    """
    settings: dict[str, Any] = {"positions": "last"}
    heads = {
        ARM_NAME: lambda: ARMHead(**settings, regulariser=0.0, l2=0.0, tol=1e-12),
        RAD_NAME: lambda: RADHead(
            **settings,
            hidden=(192,),
            l2=0.0,
            early_stopping=False,
            max_epochs=epochs,
            learning_rate=5e-3,
            batch_rows=64,
        ),
        LINEAR_NAME: lambda: RADHead(**settings),
    }
    step, rows = progress("synthetic matrices"), []
    for matrix in MATRICES:
        for name, make in heads.items():
            fit = fit_matrix(matrix, make(), n_tokens=n_tokens, dim=dim)
            rows.append(
                {
                    "matrix": matrix,
                    "head": name,
                    "error": fit.error,
                    "floor": fit.floor,
                    "rank": fit.spectrum.rank(RANK_CUTOFF),
                    "rank_rounding": fit.spectrum.rank(1e-6),
                    "bound": dim if name == ARM_NAME else None,
                    "values": fit.spectrum.values.tolist(),
                }
            )
            step(len(rows), len(MATRICES) * len(heads))
    return rows


def find(rows: Sequence[dict[str, Any]], matrix: str, head: str) -> dict[str, Any]:
    """Return the row of a fit."""
    (row,) = [row for row in rows if row["matrix"] == matrix and row["head"] == head]
    return row
