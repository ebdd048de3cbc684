"""The sections of an experiment: typed, strict, and only strings, numbers, lists and mappings.

A section may be written as its main value: ``encoder: hashing`` is ``encoder: {name: hashing}``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar, get_type_hints

from embedrm.experiments.experiment_files import Misfit
from embedrm.experiments.experiment_values import check_known, check_value
from embedrm.experiments.labelling import read_annotator, read_pairing

if TYPE_CHECKING:
    from embedrm.datasets.pairing import PairingScheme
    from embedrm.numerics.annotation import Annotator
    from embedrm.numerics.annotator_pool import AnnotatorPool

SIDES = ("response", "prompt", "joint")
GROWTH = ("prompts", "pairs", "responses")
SHARES = {"train": 0.7, "validation": 0.1, "test": 0.2}
"""Of the prompt groups, where the data bring no splits."""

S = TypeVar("S", bound="Section")


@dataclass(frozen=True)
class Section:
    """Base of the sections: read strictly, written without what is default."""

    main: ClassVar[str] = ""
    title: ClassVar[str] = ""

    @classmethod
    def read(cls: type[S], value: Any, name: str) -> S:
        """Return the section of plain data; unknown keys and wrong types raise with their place."""
        known = [f.name for f in fields(cls)]
        if not isinstance(value, Mapping):
            value = {cls.main: value}
        hints, out = get_type_hints(cls), {}
        for key, given in value.items():
            check_known(key, known, f"key of {name!r}", (name, key))
            out[key] = check_value(given, hints[key], key, f"the section {name!r}", (name, key))
        section = cls(**out)
        section.check(name)
        return section

    def check(self, name: str) -> None:
        """Raise where values do not go together."""

    def written(self) -> dict[str, Any]:
        """Return the values that are not the default ones, as plain data."""
        out = {}
        for f in fields(self):
            default = f.default_factory() if f.default_factory is not MISSING else f.default
            if getattr(self, f.name) != default:
                out[f.name] = asdict(self)[f.name]
        return out


@dataclass(frozen=True)
class DataSection(Section):
    """What is compared.

    Attributes
    ----------
    files : str or list of str
        A bundled data set, or files of preferences.
    form, columns, on_error, ties, allow_group_leak
        As :func:`embedrm.read_preferences` takes them.
    domains : str, list of str, optional
        Only pairs of these, in training and in evaluation.
    shares : mapping of str to float
        Of the split that is made, by prompt group, where the data bring none.
    random_state : int
        Seed of that split; with ``release``, of the pairs.
    release : str, optional
        ``FOLDER/NAME`` of arrays in the layout of the Reusing-Embeddings release, in place of files and an encoder: vectors
        of candidates with gold, mapped from disk, a prompt's pair drawn at random; see
        :func:`embedrm.datasets.candidate_arrays.load_release`. ``training.pairing`` draws others to fit on.
    """

    main: ClassVar[str] = "files"

    files: str | list[str] = "domains"
    form: str = "auto"
    columns: dict[str, str | None] | None = None
    on_error: str = "raise"
    ties: str = "auto"
    allow_group_leak: bool = False
    domains: str | list[str] | None = None
    shares: dict[str, float] = field(default_factory=lambda: dict(SHARES))
    random_state: int = 0
    release: str | None = None

    @property
    def paths(self) -> list[str]:
        """The files as a list."""
        return [self.files] if isinstance(self.files, str) else list(self.files)

    def reading(self) -> dict[str, Any]:
        """Return what decides which rows are read from the files."""
        names = ("form", "columns", "on_error", "ties", "allow_group_leak")
        return {name: getattr(self, name) for name in names}

    def check(self, name: str) -> None:
        """Raise where no file is named."""
        if not self.paths:
            raise Misfit("'files' of the section 'data' names no file.", (name, "files"))
        if self.release is not None and self.files != type(self).files:
            raise Misfit("'release' of the section 'data' takes the place of 'files'; give one.", (name, "release"))


@dataclass(frozen=True)
class EncoderSection(Section):
    """What makes vectors of texts.

    Attributes
    ----------
    name : str
        As :func:`embedrm.load_encoder` takes it.
    options : mapping
        Further parameters of the encoder, such as ``max_length``.
    layers : str, int, list, or mapping of side to these, optional
        Hidden layers; the encoder's own choice where absent.
    sides : list of str
        ``response``, ``prompt``, ``joint``.
    """

    main: ClassVar[str] = "name"

    name: str = "all-MiniLM-L6-v2"
    options: dict[str, Any] = field(default_factory=dict)
    layers: str | int | list[str | int] | dict[str, str | int | list[str | int]] | None = None
    sides: list[str] = field(default_factory=lambda: ["response", "prompt"])

    def check(self, name: str) -> None:
        """Raise for a side that there is not."""
        for side in self.sides:
            check_known(side, SIDES, "side", (name, "sides"))


@dataclass(frozen=True)
class TrainingSection(Section):
    """What is fitted on.

    Attributes
    ----------
    split : str
        The split.
    domains : str, list of str, optional
        Only pairs of these; evaluation keeps its own.
    by : {"prompts", "pairs", "responses"}
        What ``size`` counts; see :func:`embedrm.experiments.subsets.joining_sizes`.
    size : int, optional
        How many to draw; all where absent. Each seed draws anew, and a smaller draw of one seed is inside its larger one.
    pairing : str or mapping, optional
        A scheme by which pairs are drawn among the responses with gold to these prompts, in place of the data's own pairs;
        see :func:`embedrm.draw_pairs`. It goes with ``by: prompts`` alone.
    n_annotations : int, optional
        How many pairs: drawn by the scheme, or at random from the data's own.
    annotation : mapping, optional
        ``{flip_rate, beta, scale}`` of a simulated annotator, or ``{annotators: [...], shares, by, votes}`` of a pool; see
        :func:`embedrm.annotate`. Labels as they are where absent. What is judged on keeps its labels.
    """

    main: ClassVar[str] = "split"

    split: str = "train"
    domains: str | list[str] | None = None
    by: str = "prompts"
    size: int | None = None
    pairing: str | dict[str, Any] | None = None
    n_annotations: int | None = None
    annotation: dict[str, Any] | None = None

    @property
    def scheme(self) -> PairingScheme | None:
        """The scheme that is named by ``pairing``."""
        return read_pairing(self.pairing, ("training", "pairing"))

    @property
    def annotator(self) -> Annotator | AnnotatorPool | None:
        """Whom ``annotation`` describes; None where labels are perfect."""
        found = read_annotator(self.annotation, ("training", "annotation"))
        return None if found is None or found.exact else found

    @property
    def draws(self) -> bool:
        """Whether each seed has a training set of its own."""
        return not (
            self.size is None and self.pairing is None and self.n_annotations is None and self.annotator is None
        )

    def drawn_facts(self) -> dict[str, Any]:
        """Return all that a draw depends on beside the seed, with what is default, as JSON values."""
        facts: dict[str, Any] = {} if self.size is None else {"by": self.by, "size": self.size}
        scheme, annotator = self.scheme, self.annotator
        if scheme is not None:
            facts["pairing"] = scheme.to_info()
        if self.n_annotations is not None:
            facts["n_annotations"] = self.n_annotations
        if annotator is not None:
            facts["annotation"] = annotator.to_info()
        return facts

    def check(self, name: str) -> None:
        """Raise for a kind or a size that there is not, and for schemes and annotators that there are not."""
        check_known(self.by, GROWTH, "kind of draw", (name, "by"))
        if self.n_annotations is not None and self.n_annotations < 1:
            raise Misfit(f"'n_annotations' must be at least 1, got {self.n_annotations}.", (name, "n_annotations"))
        read_annotator(self.annotation, (name, "annotation"))
        if read_pairing(self.pairing, (name, "pairing")) is not None and self.size is not None and self.by != "prompts":
            raise Misfit(
                f"'by: {self.by}' chooses among the data's own pairs, which 'pairing' replaces; use by: prompts, or "
                "n_annotations.",
                (name, "by"),
            )
        if self.size is not None and self.size < 1:
            raise Misfit(f"'size' of the section 'training' must be at least 1, got {self.size}.", (name, "size"))


@dataclass(frozen=True)
class EvaluationSection(Section):
    """What is judged on.

    Attributes
    ----------
    splits : str, list of str, optional
        Those of ``validation`` and ``test`` that there are, where absent. Whatever is chosen, is chosen on ``validation``.
    domains : str, list of str, optional
        Only pairs of these.
    best_of_n : list of int, optional
        Numbers of candidates. Trials are then judged, beside pairs, on the candidates with gold of every prompt of the
        splits: gold of the best of n, and Spearman's rank correlation by prompt; see
        :class:`embedrm.experiments.choices.Choices`.
    prompts : int, optional
        Candidates of so many prompts, drawn at random and the same in every trial; of all of them where absent.
    n_resamples, random_state : int
        Of the intervals of a report; they change no result and are not part of a fingerprint.
    """

    main: ClassVar[str] = "splits"

    splits: str | list[str] | None = None
    domains: str | list[str] | None = None
    best_of_n: list[int] | None = None
    prompts: int | None = None
    n_resamples: int = 2000
    random_state: int = 0

    def choice_facts(self) -> dict[str, Any]:
        """Return what the judgement of choices among candidates depends on; nothing where there is none."""
        if self.best_of_n is None:
            return {}
        return {"best_of_n": sorted(self.best_of_n), **({} if self.prompts is None else {"prompts": self.prompts})}

    def check(self, name: str) -> None:
        """Raise without a resample, and for numbers of candidates and prompts that there cannot be."""
        ns = self.best_of_n
        if ns is not None and (not ns or min(ns) < 2 or len(set(ns)) < len(ns)):
            raise Misfit(f"'best_of_n' must be different whole numbers from 2, got {ns}.", (name, "best_of_n"))
        if self.prompts is not None and ns is None:
            raise Misfit("'prompts' counts those of 'best_of_n', which is not set; set it too.", (name, "prompts"))
        if self.prompts is not None and self.prompts < 1:
            raise Misfit(f"'prompts' must be at least 1, got {self.prompts}.", (name, "prompts"))
        if self.n_resamples < 1:
            raise Misfit("'n_resamples' of the section 'evaluation' must be at least 1.", (name, "n_resamples"))
