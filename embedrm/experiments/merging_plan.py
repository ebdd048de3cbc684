"""What reproducing DogeRM on small encoders will tune and read, laid out before anything is tuned."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from embedrm.errors import InvalidInputError
from embedrm.experiments import merging_arms as arms
from embedrm.experiments.literal_arms import drawn_rows
from embedrm.experiments.study import duration, load_dataset, with_splits
from embedrm.numerics.bootstrap import N_RESAMPLES
from embedrm.progress import Progress, silent

if TYPE_CHECKING:
    from embedrm.datasets import PreferenceDataset
    from embedrm.encoders import Encoder
    from embedrm.experiments.merging_encoders import EncoderMergeStudy


class EncoderMergePlan:
    """What will be tuned and read, where it is kept, and how long it takes; nothing is tuned before :meth:`run`.

    Parameters
    ----------
    data : PreferenceDataset, path or None
        The bundled data set where absent.
    preset : str
        Of :data:`embedrm.experiments.merging_arms.MERGE_PRESETS`, or one of one's own.
    encoder : Encoder or str, optional
        The base of all.
    targets : mapping of domain to str, optional
        Which domains are merged towards, and under which name; see :func:`~embedrm.experiments.merging_arms.find_targets`.
    objective : {"masked-token", "contrastive"}
        What moves the domain encoders.

    Attributes
    ----------
    store : EmbeddingStore or None
        Where vectors are kept, those of every lambda too; the user's own where None.
    notes : list of str
        Domains that could have been targets and are not, and why.

    Raises
    ------
    InvalidInputError
        An encoder that cannot be tuned, data without a target or a general domain, or targets without pairs to choose
        lambda by or to judge by: all of them, or one that was asked for.
    """

    def __init__(
        self,
        data: PreferenceDataset | str | None = None,
        preset: str | arms.MergePreset = "quick",
        encoder: Encoder | str | None = None,
        *,
        targets: Mapping[str, str] | None = None,
        objective: str = "masked-token",
    ) -> None:
        self.preset = arms.MERGE_PRESETS[preset] if isinstance(preset, str) else preset
        self.store: Any = None
        self.config = arms.general_config(encoder, self.preset)
        dataset = with_splits(load_dataset(data), validation=True)
        domains = dataset.pair_domains().astype(str)
        found = arms.find_targets(domains.tolist(), targets)
        self.targets, self.notes = (found, []) if targets is not None else self._judgeable(dataset, found)
        towards = [d for target in self.targets for d in target.domains]
        general = np.flatnonzero(~np.isin(domains, towards))
        own = dataset.subset(general).compact()
        rows = drawn_rows(own, self.preset.n_pairs)
        if not len(rows):
            raise InvalidInputError(
                "the general reward encoder needs training pairs of general domains, and there are none beside "
                f"{', '.join(towards)}. Give data with pairs of other domains in the training split."
            )
        self.train = own.subset(rows).compact()
        self.general_domains = sorted(set(self.train.pair_domains().astype(str).tolist()))
        self.validation = {t.name: self._judged(dataset, "validation", t) for t in self.targets}
        for target in self.targets:
            self._judged(dataset, "test", target)
        judged = [*self.general_domains, *towards]
        self.test = self._test(dataset, judged, self.preset.n_texts)
        self.base_test = self._test(dataset, judged, self.preset.n_base_texts)
        self.candidates = {t.name: self._candidates(dataset, t) for t in self.targets}
        texts = {t.name: arms.domain_texts(dataset, t, data is None) for t in self.targets}
        self.arms = arms.merge_arms(self.train, texts, self.config, self.preset, objective)

    def _judgeable(self, data: PreferenceDataset, found: Sequence[arms.Target]) -> tuple[list[arms.Target], list[str]]:
        """Targets that nobody asked for by name are left aside where a split lacks them, as long as one is left."""
        kept, notes, first = [], [], None
        for target in found:
            try:
                for split in ("validation", "test"):
                    self._judged(data, split, target)
                kept.append(target)
            except InvalidInputError as error:
                first = first or error
                notes.append(f"{target.name} is no target but one of the general domains: {error}")
        if not kept and first is not None:
            raise first
        return kept, notes

    def _judged(self, data: PreferenceDataset, split: str, target: arms.Target) -> PreferenceDataset:
        rows = arms.labelled(data, split, target.domains)
        if not len(rows):
            what = "lambda is chosen on" if split == "validation" else "merging is judged by"
            raise InvalidInputError(
                f"{what} {split} pairs of the domain merged towards, and {target.name} ({', '.join(target.domains)}) has "
                f"none with a preference. Give data whose {split} split has that domain."
            )
        return data.subset(rows).compact()

    def _candidates(self, data: PreferenceDataset, target: arms.Target) -> PreferenceDataset | None:
        """All graded responses to a target's test prompts, to choose the best of n among; None where none are graded."""
        splits = data.response_splits()[data.pairs["chosen"].to_numpy()]
        rows = np.flatnonzero((splits == "test") & np.isin(data.pair_domains().astype(str), target.domains))
        found = data.subset(rows).compact()
        gold = found.responses["gold"].notna()
        whole = gold.groupby(found.responses["prompt_of"]).all()
        return found if gold.any() and whole.all() else None

    def _test(self, data: PreferenceDataset, domains: Sequence[str], n_texts: int | None) -> PreferenceDataset:
        return data.subset(arms.drawn_texts(data, arms.labelled(data, "test", domains), n_texts)).compact()

    def estimate(self) -> str:
        """Say how long tuning takes on this machine, from a few timed steps, and what it needs."""
        found = arms.estimate_merge_arms(self.arms)
        left, n = int(found["arms"]), len(self.arms)
        sizes = f"{len(self.train):,} general pairs, {self.config.epochs} epochs; text of " + ", ".join(
            f"{arm.name} ({len(arm.data):,})" for arm in self.arms[1:]
        )
        if not left:
            return f"encoders to merge ({sizes}): all {n} are tuned already, in {arms.merging_folder()}"
        ready = f" ({n - left} more are there already)" if left < n else ""
        return (
            f"encoders to merge ({sizes}): {left} to tune{ready}, about {duration(found['seconds'])} on this machine as it "
            f"is now, once; memory about {found['memory_bytes'] / 2**30:.1f} GiB, disk "
            f"{found['disk_bytes'] / 2**30:.1f} GiB in {arms.merging_folder()}, where a run that was stopped goes on"
        )

    def run(self, *, progress: Progress = silent, n_resamples: int = N_RESAMPLES) -> EncoderMergeStudy:
        """Tune what is not tuned yet, merge, and measure."""
        from embedrm.experiments.merging_encoders import EncoderMergeStudy

        return EncoderMergeStudy(self, progress, n_resamples)
