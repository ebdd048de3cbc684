"""Parameters of the variants of Namgoong et al. (2024): as they are here, and with an encoder for each model as there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from embedrm.errors import InvalidInputError


@dataclass(frozen=True)
class Counted:
    """Learned numbers of one variant.

    Parameters
    ----------
    heads : int
        Of everything that is trained beside the encoder: heads, experts, adapters, gate or router.
    copies : int
        Encoders that the paper's form of it keeps in memory: 1, or for RODOS one for each domain and one for the router.
    """

    heads: int
    copies: int = 1


REFERENCE = "RODOS"


def accounting_rows(encoder: int, variants: Mapping[str, Counted], reference: str = REFERENCE) -> list[dict[str, Any]]:
    """Rows of the parameter table.

    Parameters
    ----------
    encoder : int
        F, the encoder's parameters.
    variants : mapping of name to Counted
        Of them ``reference`` is what reductions are told against.

    Returns
    -------
    list of dict
        ``variant``, ``heads`` (head-only), ``shared`` (one frozen encoder and the heads: what is in memory here),
        ``paper`` (``copies * F + heads``: single F + H,
        RODOS (n + 1) F + n H + R, MoRE F + n H + G, ARLISS F + T + (n + 1) A),
        ``reduction_shared`` and ``reduction_paper``: the share saved against the reference in the same accounting.

    Notes
    -----
    Here every variant shares one frozen encoder, so that the paper's saving, which is that of encoders, nearly vanishes;
    in its own accounting it is governed by n. MoRE widens the encoder's blocks in the paper and adds heads on its output
    here, so that its ``paper`` count is what this variant would need, not that of the paper's.
    """
    if encoder < 0:
        raise InvalidInputError(f"the encoder's parameters must be at least 0, got {encoder}")
    if reference not in variants:
        raise InvalidInputError(
            f"the reference {reference!r} is not among the variants ({', '.join(variants)}); name one that is"
        )
    totals = {name: (encoder + v.heads, v.copies * encoder + v.heads) for name, v in variants.items()}
    base = totals[reference]
    return [
        {
            "variant": name,
            "heads": variants[name].heads,
            "shared": shared,
            "paper": paper,
            "reduction_shared": 1.0 - shared / base[0],
            "reduction_paper": 1.0 - paper / base[1],
        }
        for name, (shared, paper) in totals.items()
    ]
