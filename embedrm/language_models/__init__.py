"""Frozen causal language models: the small ones that the package trains on its own text, and any from Hugging Face.

Importing this package loads no model and not torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from embedrm.progress import Progress, silent

if TYPE_CHECKING:
    from embedrm.language_models.model import LanguageModel
    from embedrm.language_models.perplexity import Perplexity
    from embedrm.language_models.training import SmallLM

__all__ = ["LanguageModel", "Perplexity", "SmallLM", "load_language_model", "load_language_models"]

_LAZY = {
    "LanguageModel": "embedrm.language_models.model",
    "Perplexity": "embedrm.language_models.perplexity",
    "SmallLM": "embedrm.language_models.training",
}


def load_language_model(name: str = "bundled", **options: Any) -> LanguageModel:
    """Return a frozen causal language model.

    Parameters
    ----------
    name : str or path-like
        ``"bundled"``: a small transformer, trained on half of the bundled text the first time it is asked for (about
        three minutes on one core) and kept under ``$EMBEDRM_HOME/language_models``. ``"bundled:judge"``: another one,
        trained on the other half from another seed, to judge what the first has written. Anything else: a folder, or a name
        on the Hugging Face hub (looked for locally first), such as ``"gpt2"``.
    **options
        For the bundled ones: ``config``, a :class:`SmallLM`; ``folder``, where they are kept; ``progress``, see
        :mod:`embedrm.progress`. For others: ``revision`` and ``offline``. For all: ``max_length``.

    Raises
    ------
    ModelError
        There is no such model, or it is no causal language model.
    InvalidInputError
        An option that it does not have.
    """
    from embedrm.language_models.loading import load

    return load(name, options)


def load_language_models(*names: str, progress: Progress = silent) -> list[LanguageModel]:
    """Return several frozen causal language models; bundled ones that are not there yet are trained side by side.

    Parameters
    ----------
    *names : str
        As in :func:`load_language_model`.
    progress : Progress
        Of the first one that is trained.

    Returns
    -------
    list of LanguageModel
        In the order of the names.

    Raises
    ------
    ModelError, InvalidInputError
        As :func:`load_language_model`.
    """
    from embedrm.language_models.loading import BUNDLED, load, trained_beside

    bundled = [name for name in dict.fromkeys(names) if name in BUNDLED]
    options = {name: {"progress": progress} if name in BUNDLED else {} for name in names}
    with trained_beside(bundled[1:]):
        first = {name: load(name, options[name]) for name in bundled[:1]}
    return [first[name] if name in first else load(name, options[name]) for name in names]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        from importlib import import_module

        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
