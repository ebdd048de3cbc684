"""Entries for BibTeX of the papers that are reproduced."""

from __future__ import annotations

from collections.abc import Mapping

_NAMGOONG = {
    "kind": "inproceedings",
    "key": "namgoong2024exploring",
    "title": "Exploring Domain Robust Lightweight Reward Models based on Router Mechanism",
    "author": "Namgoong, Hyuk and Jung, Jeesu and Jung, Sangkeun and Roh, YoonHyung",
    "booktitle": "Findings of the Association for Computational Linguistics: ACL 2024",
    "pages": "8644--8652",
    "year": "2024",
}
_LIN = {
    "kind": "inproceedings",
    "key": "lin2024dogerm",
    "title": "{DogeRM}: Equipping Reward Models with Domain Knowledge through Model Merging",
    "author": "Lin, Tzu-Han and Li, Chen-An and Lee, Hung-yi and Chen, Yun-Nung",
    "booktitle": "Proceedings of the 2024 Conference on Empirical Methods in Natural Language Processing",
    "pages": "15506--15524",
    "year": "2024",
}
_TROSHIN = {
    "kind": "article",
    "key": "troshin2025lowrank",
    "title": "On the Low-Rank Parametrization of Reward Models for Controlled Language Generation",
    "author": "Troshin, Sergey and Niculae, Vlad and Fokkens, Antske",
    "journal": "Transactions on Machine Learning Research",
    "year": "2025",
    "note": "First versions: Efficient Controlled Language Generation with Low-Rank Autoregressive Reward Models (2024)",
}
_DENG = {
    "kind": "inproceedings",
    "key": "deng2023reward",
    "title": "Reward-Augmented Decoding: Efficient Controlled Text Generation With a Unidirectional Reward Model",
    "author": "Deng, Haikang and Raffel, Colin",
    "booktitle": "Proceedings of the 2023 Conference on Empirical Methods in Natural Language Processing",
    "year": "2023",
}
_REUSING = {
    "kind": "misc",
    "key": "sun2025reusing",
    "title": "Reusing Embeddings: Reproducible Reward Model Research in Large Language Model Alignment without {GPUs}",
    "author": "Sun, Hao and Shen, Yunyi and Ton, Jean-Francois and {van der Schaar}, Mihaela",
    "year": "2025",
    "eprint": "2502.04357",
    "archiveprefix": "arXiv",
}
_RETHINKING = {
    "kind": "misc",
    "key": "sun2024rethinking",
    "title": "Rethinking {Bradley}-{Terry} Models in Preference-Based Reward Modeling: Foundations, Theory, and "
    "Alternatives",
    "author": "Sun, Hao and Shen, Yunyi and Ton, Jean-Francois",
    "year": "2024",
    "eprint": "2411.04991",
    "archiveprefix": "arXiv",
    "note": "International Conference on Learning Representations, 2025",
}
ENTRIES: dict[str, tuple[Mapping[str, str], ...]] = {
    "lin2024": (_LIN,),
    "namgoong2024": (_NAMGOONG,),
    "sun2025": (_REUSING, _RETHINKING),
    "troshin2024": (_TROSHIN, _DENG),
}
"""By the name of the paper."""


def bibtex(name: str) -> str | None:
    """Return the entries of a reproduced paper, with an empty line between two; None for a paper without any here."""
    found = ENTRIES.get(name, ())
    return "\n\n".join(map(_entry, found)) or None


def _entry(facts: Mapping[str, str]) -> str:
    fields = {key: value for key, value in facts.items() if key not in ("kind", "key")}
    width = max(map(len, fields))
    lines = [f"  {key:<{width}} = {{{value}}}" for key, value in fields.items()]
    return f"@{facts['kind']}{{{facts['key']},\n" + ",\n".join(lines) + "\n}"
