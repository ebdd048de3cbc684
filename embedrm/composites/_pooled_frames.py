r"""From features scaled on one domain to features scaled on all: a linear map of weights.

Scaled on the domain's own rows, a view is :math:`z' = \sigma z - \delta` of the same view scaled on all rows. So
:math:`r' \cdot v = r \cdot \sigma_r v` but for a constant, and
:math:`(p' \circ r') \cdot v = (p \circ r) \cdot \sigma_p \sigma_r v - r \cdot \delta_p \sigma_r v` but for what is the same
for all responses to a prompt. Weights v on the domain's features are weights A v on everyone's, and A is made of vectors.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from embedrm.featurizers import Featurizer

Array = NDArray[np.float64]


@dataclass
class Frame:
    """The map A of one domain's weights (dim,) or (dim, k), with its transpose and inverses.

    Parameters
    ----------
    plain : list of (slice, ndarray)
        Weights that are multiplied by a factor: those of ``r``, and of covariates.
    crossed : list of (slice, slice, ndarray, ndarray)
        Weights of ``p*r``, those of ``r`` which they also move, the factor and the move. All empty: the identity.
    """

    plain: list[tuple[slice, Array]] = field(default_factory=list)
    crossed: list[tuple[slice, slice, Array, Array]] = field(default_factory=list)

    def apply(self, v: Array) -> Array:
        """A v."""
        out = v.copy()
        for part, factor in self.plain:
            out[part] *= _columns(factor, v)
        for part, target, factor, move in self.crossed:
            out[target] -= _columns(move, v) * v[part]
            out[part] *= _columns(factor, v)
        return out

    def transpose(self, g: Array) -> Array:
        """A.T g."""
        out = g.copy()
        for part, target, factor, move in self.crossed:
            out[part] *= _columns(factor, g)
            out[part] -= _columns(move, g) * g[target]
        for part, factor in self.plain:
            out[part] *= _columns(factor, g)
        return out

    def inverse(self, w: Array) -> Array:
        """The v with A v = w."""
        out = w.copy()
        for part, target, factor, move in self.crossed:
            out[part] /= _columns(factor, w)
            out[target] += _columns(move, w) * out[part]
        for part, factor in self.plain:
            out[part] /= _columns(factor, w)
        return out

    def inverse_transpose(self, g: Array) -> Array:
        """The x with A.T x = g."""
        out = g.copy()
        for part, factor in self.plain:
            out[part] /= _columns(factor, g)
        for part, target, factor, move in self.crossed:
            out[part] += _columns(move, g) * out[target]
            out[part] /= _columns(factor, g)
        return out


def own_frame(shared: Featurizer, own: Featurizer) -> Frame:
    """Return the map from weights on ``own`` features to weights on ``shared`` ones.

    The identity where no such map exists: with a projection, residuals or distances, or products without ``r`` itself.
    """
    terms = shared.terms_
    if shared.projection_ or shared.residualise_ or "abs(p-r)" in terms or ("p*r" in terms and "r" not in terms):
        return Frame()
    blocks = shared.feature_blocks()
    of_view = {view: columns for term, _, view, columns in blocks if term == "r"}
    ratio = {v: shared.spread_[v] / own.spread_[v] for v in shared.centre_}
    frame = Frame()
    for term, p, view, columns in blocks:
        if term == "r":
            frame.plain.append((columns, ratio[view]))
        elif p is not None:
            shift = (own.centre_[p] - shared.centre_[p]) / own.spread_[p]
            frame.crossed.append((columns, of_view[view], ratio[p] * ratio[view], shift * ratio[view]))
    if shared.covariates_:
        last = slice(blocks[-1][-1].stop, shared.dim_)
        frame.plain.append((last, shared.covariate_spread_ / own.covariate_spread_))
    return frame


def _columns(factor: Array, like: Array) -> Array:
    return factor if like.ndim == 1 else factor[:, None]
