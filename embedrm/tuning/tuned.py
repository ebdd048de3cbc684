"""TunedEncoder: an encoder moved by preferences, domains or plain text, saved as an ordinary encoder."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from embedrm.datasets.template import PLAIN, Template
from embedrm.encoders.sentence import SentenceEncoder
from embedrm.errors import InvalidInputError, ModelError
from embedrm.progress import Progress, silent
from embedrm.tuning.base import base_digest, find_base
from embedrm.tuning.checkpoint import Checkpoints
from embedrm.tuning.config import TuningConfig
from embedrm.tuning.heads import TunedHead, accuracy, template_of
from embedrm.tuning.saving import ADAPTER, as_json, check_free, read_facts, save_tuned
from embedrm.tuning.session import Session, open_session

if TYPE_CHECKING:
    from embedrm.datasets import PreferenceDataset
    from embedrm.store import EmbeddingStore
    from embedrm.tuning.estimate import TuningEstimate

Array = NDArray[np.float64]


class TunedEncoder:
    """An encoder whose weights were moved, and what it was moved by.

    Parameters
    ----------
    config : TuningConfig, optional
    **changes
        Fields of :class:`TuningConfig`, taken instead of those of ``config``.

    Attributes
    ----------
    folder : Path
        After :meth:`fit` or :meth:`load`: a sentence-transformers folder; with ``adapter/`` (peft's format) for LoRA, the
        head in ``tuning_head.safetensors`` and the facts in ``tuning.json``.
    history_ : list of dict
        One entry for each evaluation.
    resumed_at_ : int or None
        The step that the last :meth:`fit` went on from; None where it began anew.
    facts_ : dict
        What ``tuning.json`` holds: configuration, base and its digest, data, history, versions.

    Notes
    -----
    A tuned reward reads prompt and response as one text (:meth:`PreferenceDataset.joint_texts`), cut to
    ``config.max_length`` tokens, and is linear in that text's pooled vector. So it can be had from stored vectors of the
    view ``joint`` as well.

    Examples
    --------
    >>> from embedrm import TunedEncoder, load_bundled
    >>> tuned = TunedEncoder(method="lora", epochs=2)
    >>> tuned.fit(load_bundled().split("train"), "runs/tuned")  # doctest: +SKIP
    >>> tuned.encoder().encode(["Yes."])  # doctest: +SKIP
    >>> tuned.score(load_bundled().split("test"))  # doctest: +SKIP
    """

    def __init__(self, config: TuningConfig | None = None, **changes: Any) -> None:
        self.config = TuningConfig.from_dict({**(config or TuningConfig()).to_dict(), **changes})
        self._folder: Path | None = None
        self.facts_: dict[str, Any] = {}
        self.resumed_at_: int | None = None
        self._encoders: dict[str, SentenceEncoder] = {}

    def __repr__(self) -> str:
        place = "not tuned" if self._folder is None else str(self._folder)
        return f"TunedEncoder({self.config.base!r}, {self.config.method}, {self.config.objective}: {place})"

    # -- tuning ---------------------------------------------------------------------------------------------------

    def fit(
        self,
        data: PreferenceDataset | Sequence[str],
        folder: str | Path,
        *,
        groups: Sequence[object] | None = None,
        template: Template = PLAIN,
        resume: bool = True,
        progress: Progress = silent,
        announce: Callable[[str], None] | None = None,
    ) -> TunedEncoder:
        """Tune, and save the result.

        Parameters
        ----------
        data : PreferenceDataset or sequence of str
            Pairs for ``bradley-terry``, and prompts with domains for ``domain``. Plain texts (or a data set, of which the
            prompts and responses of its pairs are taken) for ``masked-token`` and ``contrastive``.
        folder : path
            Where the result goes; it must not be there yet. Until it is done, checkpoints are in ``FOLDER.unfinished``.
        groups : sequence, optional
            Prompt groups of plain texts.
        template : Template
            How system text, context, prompt and response become one text.
        resume : bool
            Go on from a checkpoint of the same run if there is one; False throws it away.
        progress : Progress
            See :mod:`embedrm.progress`.
        announce : callable, optional
            Called with an estimate of time and memory before the work starts, which takes a few steps to find out.

        Returns
        -------
        TunedEncoder
            Itself.

        Raises
        ------
        InvalidInputError
            Nothing to learn from, a base that cannot be tuned, a folder that is there, or a checkpoint of another run.
        ModelError
            A base that cannot be loaded, or a loss that is not finite.
        MissingDependencyError
            ``lora`` without the package peft.
        """
        place = Path(folder).expanduser()
        check_free(place)
        if announce is not None:
            announce(str(self.estimate(data, groups=groups, template=template)))
        session = open_session(self.config, data, groups, template)
        work = place.with_name(place.name + ".unfinished")
        if not resume and work.exists():
            shutil.rmtree(work)
        checkpoints = Checkpoints(work, run_identity(self.config, session, template))
        run = session.run
        resumed = run.position.step if checkpoints.restore(run) else None
        start = run.position.step
        step = progress(f"tuning ({self.config.method})" + (f" from step {start}" if start else ""))
        # counted from where it went on, or the rate would take the steps of an earlier day for those of this one
        run.train(lambda done, total: step(done - start, total - start), checkpoints.save, checkpoints.save_best)
        run.finish()
        facts = run_facts(self.config, session, template)
        save_tuned(place, session.base, session.adapters, session.head_arrays(), facts)
        shutil.rmtree(work, ignore_errors=True)
        self._take(place, read_facts(place))
        self.resumed_at_ = resumed
        return self

    def estimate(
        self,
        data: PreferenceDataset | Sequence[str],
        *,
        groups: Sequence[object] | None = None,
        template: Template = PLAIN,
    ) -> TuningEstimate:
        """Estimate seconds, memory and disk of :meth:`fit` from a few timed steps, which leave nothing behind."""
        from embedrm.tuning.estimate import estimate

        return estimate(open_session(self.config, data, groups, template))

    # -- the result -----------------------------------------------------------------------------------------------

    @classmethod
    def load(cls, folder: str | Path) -> TunedEncoder:
        """Open what :meth:`fit` saved; nothing is loaded until it is used.

        Raises
        ------
        ModelError
            The folder holds no tuned encoder.
        """
        place = Path(folder).expanduser()
        facts = read_facts(place)
        tuned = cls(TuningConfig.from_dict(facts["config"]))
        tuned._take(place, facts)
        return tuned

    def _take(self, folder: Path, facts: dict[str, Any]) -> None:
        self._folder, self.facts_, self._encoders = folder, facts, {}

    @property
    def folder(self) -> Path:
        """Where the tuned encoder is."""
        if self._folder is None:
            raise InvalidInputError(
                "this encoder is not tuned yet; call fit(data, folder), or TunedEncoder.load(folder)"
            )
        return self._folder

    @property
    def history_(self) -> list[dict[str, Any]]:
        """One entry for each evaluation: step, epoch, train_loss, validation_loss, validation_accuracy."""
        return list(self.facts_.get("history", []))

    @property
    def adapter(self) -> Path:
        """The adapter's folder, in peft's format.

        Raises
        ------
        ModelError
            The encoder was not tuned with ``lora``.
        """
        place = self.folder / ADAPTER
        if not place.is_dir():
            why = (
                "its weights are merged of several models"
                if "merge" in self.facts_
                else f"it was tuned with method={self.config.method!r}, not 'lora'"
            )
            raise ModelError(f"{self.folder} has no adapter: {why}.")
        return place

    def encoder(self, **options: Any) -> SentenceEncoder:
        """Return the tuned encoder, frozen: an encoder like any other, with a fingerprint of its own.

        Parameters
        ----------
        **options
            Of :class:`embedrm.SentenceEncoder`, such as ``max_length``; the model's own limit where absent.
        """
        return SentenceEncoder(str(self.folder), **options)

    def joint_encoder(self) -> SentenceEncoder:
        """Return the tuned encoder with the limit and truncation it was tuned with."""
        if "joint" not in self._encoders:
            self._encoders["joint"] = self.encoder(
                max_length=self.config.max_length, truncation=self.config.truncation, threads=self.config.threads
            )
        return self._encoders["joint"]

    def base_encoder(self) -> SentenceEncoder:
        """Return the encoder it was tuned from, with the limits of the tuning: what :class:`AdapterSwitch` goes over."""
        return find_base(self.config)

    @property
    def template(self) -> Template:
        """How prompt and response were made one text."""
        return template_of(self.facts_)

    @property
    def classes_(self) -> list[str]:
        """The domains, in the order of :meth:`domain_probabilities`."""
        self._head("domain")
        return list(self.facts_["classes"])

    def rewards(
        self, data: PreferenceDataset, *, store: EmbeddingStore | None = None, progress: Progress = silent
    ) -> Array:
        """Return the tuned rewards of all responses of a data set, (n_responses,), in its order.

        Parameters
        ----------
        data : PreferenceDataset
        store : EmbeddingStore, optional
            Keeps the vectors of joint texts; nothing is kept where absent.
        """
        return self._head("bradley-terry", store, progress).rewards(data)

    def margins(
        self, data: PreferenceDataset, *, store: EmbeddingStore | None = None, progress: Progress = silent
    ) -> Array:
        """Return reward of chosen minus reward of rejected, (n_pairs,); only responses in pairs are read."""
        return self._head("bradley-terry", store, progress).margins(data)

    def score(
        self, data: PreferenceDataset, *, store: EmbeddingStore | None = None, progress: Progress = silent
    ) -> float:
        """Return the weighted pairwise accuracy; equal rewards count one half, pairs labelled as ties are left out."""
        return accuracy(data, self.margins(data, store=store, progress=progress))

    def reward(self, prompts: str | Sequence[str], responses: Sequence[str]) -> Array:
        """Return rewards of responses to one prompt, or to one each, (n,)."""
        return self._head("bradley-terry").reward(prompts, responses)

    def domain_probabilities(
        self, prompts: Sequence[str], *, store: EmbeddingStore | None = None, progress: Progress = silent
    ) -> Array:
        """Return the probability of each domain for prompts, (n, n_domains), columns as in ``classes_``."""
        return self._head("domain", store, progress).probabilities(prompts)

    def _head(self, objective: str, store: EmbeddingStore | None = None, progress: Progress = silent) -> TunedHead:
        return TunedHead(self.folder, self.joint_encoder(), objective, store, progress)


def run_identity(config: TuningConfig, session: Session, template: Template) -> dict[str, Any]:
    """What a run must share with a checkpoint: all that its steps depend on, and nothing else."""
    settings = config.to_dict()
    for free in ("base", "revision", "checkpoint_every", "threads"):
        del settings[free]
    digest = hashlib.blake2b(digest_size=16)
    for ids in session.problem.ids:
        digest.update(np.array([len(ids), *ids], dtype="<i8").tobytes())
    for epoch, items in session.run.plan:
        digest.update(np.array([epoch, len(items), *items.tolist()], dtype="<i8").tobytes())
    return as_json(
        {
            "config": settings,
            "base": base_digest(session.base.encoder),
            "data": session.data_digest,
            "texts and their order": digest.hexdigest(),
            "template": hashlib.blake2b(json.dumps(template.fingerprint()).encode(), digest_size=16).hexdigest(),
        }
    )


def run_facts(config: TuningConfig, session: Session, template: Template) -> dict[str, Any]:
    """Tell what was tuned, on what, for how long and with which packages, as JSON values."""
    from importlib.metadata import version

    at = session.run.position
    packages = ("torch", "transformers", "sentence-transformers", "safetensors")
    versions = {name: version(name) for name in (*packages, *(("peft",) if config.method == "lora" else ()))}
    return as_json(
        {
            "config": config.to_dict(),
            "base_digest": base_digest(session.base.encoder),
            "data": session.problem.facts,
            "data_digest": session.data_digest,
            "template": template.fingerprint(),
            "layer": session.base.layer,
            "classes": session.classes(),
            "history": at.history,
            "steps": at.step,
            "steps_planned": session.run.n_steps,
            "best_step": at.best_step or at.step,
            "stopped": at.stopped,
            "seconds": round(at.seconds, 3),
            "parameters_tuned": int(sum(p.numel() for p in session.run.parameters.values())),
            "parameters_base": session.base.files.n_parameters(),
            "versions": versions,
        }
    )
