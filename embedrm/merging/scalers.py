"""Express a linear head's weights in another head's standardisation."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from embedrm.featurizers import Featurizer
from embedrm.numerics.digest import array_digest

Vector = NDArray[np.float64]


def standardiser_arrays(featurizer: Featurizer) -> dict[str, Vector]:
    """Return the centres and spreads of a fitted featurizer, by name."""
    arrays = {f"centre.{view}": centre for view, centre in featurizer.centre_.items()}
    arrays |= {f"spread.{view}": spread for view, spread in featurizer.spread_.items()}
    arrays |= {"covariates.centre": featurizer.covariate_centre_, "covariates.spread": featurizer.covariate_spread_}
    return arrays


def same_standardiser(one: Featurizer, other: Featurizer) -> bool:
    """Whether two featurizers standardise alike, to the bit."""
    return one is other or array_digest(standardiser_arrays(one)) == array_digest(standardiser_arrays(other))


def why_not_foldable(own: Featurizer, target: Featurizer) -> str | None:
    """Say why weights on ``own``'s features cannot be expressed on ``target``'s; None where they can."""
    if own.projection_:
        return "its vectors are projected after they are standardised"
    if own.residualise_:
        return "its features are residuals"
    if "abs(p-r)" in own.terms_:
        return "its term abs(p-r) is not linear in the vectors"
    moved = any(not np.array_equal(own.centre_[v], target.centre_[v]) for v in own.prompt_views_)
    if "p*r" in own.terms_ and "r" not in own.terms_ and moved:
        return "its term p*r, centred otherwise, adds a term r, which it does not have"
    return None


def fold(coef: Vector, own: Featurizer, target: Featurizer) -> Vector:
    r"""Weights on ``target``'s features that give the margins of ``coef`` on ``own``'s.

    With x standardised as :math:`z = (x - c) / s` by one and :math:`z' = (x - c') / s'` by the other,
    :math:`w \cdot z = (w s' / s) \cdot z' + \mathrm{const}`, and
    :math:`w \cdot (z_p \circ z_r) = (w\, s'_p s'_r / s_p s_r) \cdot (z'_p \circ z'_r) + (w\, s'_r (c'_p - c_p) / s_p s_r)
    \cdot z'_r + \mathrm{const}(p)`. The constants depend on the prompt at most; they cancel in margins within a prompt, and
    Bradley–Terry never knew them.

    Parameters
    ----------
    coef : ndarray of shape (dim,)
    own, target : Featurizer
        Of the same terms and views; see :func:`why_not_foldable`.
    """
    out = np.zeros_like(coef)
    blocks = own.feature_blocks()
    plain = {r: columns for term, _, r, columns in blocks if term == "r"}
    for term, p, r, columns in blocks:
        w = coef[columns] * (target.spread_[r] / own.spread_[r])
        if term == "r" or p is None:
            out[columns] += w
            continue
        out[columns] += w * (target.spread_[p] / own.spread_[p])
        shift = target.centre_[p] - own.centre_[p]
        if r in plain:
            out[plain[r]] += w * (shift / own.spread_[p])
    start = blocks[-1][-1].stop
    out[start:] = coef[start:] * (target.covariate_spread_ / own.covariate_spread_)
    return out
