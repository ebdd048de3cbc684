"""One experiment from its configuration to its report, and to one tidy record for each seed."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from embedrm.errors import DataError, InvalidInputError
from embedrm.evaluation import accuracy_facts
from embedrm.experiments.experiment import Experiment
from embedrm.experiments.running import Workbench, run_trial
from embedrm.experiments.running_features import forget_features
from embedrm.experiments.sweep_trials import TrialFile
from embedrm.experiments.sweep_workers import Job, finished
from embedrm.experiments.trial_metrics import METRICS, recorded, title
from embedrm.heads.length import LengthHead
from embedrm.progress import Progress, silent
from embedrm.reporting import Column, Report, Table, collect
from embedrm.reporting.accuracy import accuracy_figure, accuracy_table
from embedrm.reporting.evaluation import LENGTH_ROW

if TYPE_CHECKING:
    from embedrm.preferences import EmbeddedPreferences
    from embedrm.store import EmbeddingStore

SAVED, SAVED_SWEEP = "experiment.yaml", "sweep.yaml"
_OF_NO_RESULT = ("title", "seeds", "evaluation.n_resamples", "evaluation.random_state")


def run_experiment(
    experiment: Experiment,
    folder: str | Path | None = None,
    *,
    store: EmbeddingStore | bool | None = None,
    preferences: EmbeddedPreferences | None = None,
    progress: Progress = silent,
    command: str | None = None,
) -> Report:
    """Fit and judge an experiment for each of its seeds.

    Parameters
    ----------
    experiment : Experiment
    folder : path-like, optional
        Where ``experiment.yaml`` and ``trials.jsonl`` are kept, and the report; nothing is written where absent.
    store, preferences
        See :class:`embedrm.experiments.running.Workbench`.
    progress : Progress
    command : str, optional
        For the provenance.

    Returns
    -------
    Report
        A table ``accuracy-SPLIT`` for each split that is judged on, with intervals over prompt groups and the mean over
        seeds; ``seeds``, a row each with what it cost; ``settings``, everything that was set.
    """
    started = time.perf_counter()
    config = experiment.config
    if folder is not None:
        check_place(experiment, Path(folder))
    forget_features()
    bench = Workbench(store, preferences, None, progress)
    trials = None if folder is None else TrialFile(folder)
    prepared = bench.prepared(config)
    # seeds that nothing draws by are one fit
    seeds = config.seeds if experiment.seed_matters() else config.seeds[:1]
    step = progress("fit (seeds)")
    name = str(getattr(experiment.model, "registered_name", "model"))
    margins: dict[str, list[Any]] = {one.name: [] for one in prepared.judged}
    rows, logits = [], True
    for seed in seeds:
        facts, model = run_trial(config.parts, seed, prepared)
        logits = model.margins_are_logits
        for one in prepared.judged:
            margins[one.name].append(model.margins(one.preferences))
        job = Job(experiment.fingerprint(bench, seed), config.parts, seed, record_facts(experiment, {}, ""))
        rows.append(finished(job, facts))
        if trials is not None:
            trials.append(rows[-1])
        step(len(rows), len(seeds))
    if trials is not None:
        trials.close()
    title = config.title or f"{name} on {bench.data_facts(config)['name']}"
    report = Report("experiment", title, notes=_notes(experiment, prepared))
    for one in prepared.judged:
        known = {name: np.stack(margins[one.name])}
        if "characters" in one.preferences.responses.covariates:
            known[LENGTH_ROW] = LengthHead().fit(one.preferences).margins(one.preferences)[None]
        facts = accuracy_facts(
            known,
            one.preferences,
            logits={name: logits, LENGTH_ROW: False},
            n_resamples=config.evaluation.n_resamples,
            random_state=config.evaluation.random_state,
        )
        best = facts["rows"][0]["micro"]
        report.summary.append(
            f"{one.name}: {best['value']:.3f} [{best['low']:.3f}, {best['high']:.3f}] accuracy on {best['n']:,} pairs."
        )
        table = accuracy_table(facts, f"accuracy-{one.name}", f"Pairwise accuracy on {one.name}")
        figure = accuracy_figure(facts, name=f"accuracy-by-domain-{one.name}")
        report.add_section(f"Accuracy on {one.name}", tables=[table], figures=[figure])
    report.add_section("Seeds and cost", tables=[seeds_table(rows)])
    report.add_section("Settings", tables=[settings_table(experiment.to_dict())])
    info = prepared.whole.responses.info
    report.provenance = collect(
        command=command,
        seeds=list(config.seeds),
        encoder=info.get("encoder"),
        data=info.get("data") or {"fingerprint": bench.data_facts(config)["digest"]},
        started=started,
        extra={
            "fingerprints": {str(row["seed"]): row["fingerprint"] for row in rows},
            "experiment": experiment.to_dict(),
            **{key: info[key] for key in ("truncation", "template") if key in info},
        },
    )
    if folder is not None:
        root = Path(folder)
        root.mkdir(parents=True, exist_ok=True)
        (root / SAVED).write_text(experiment.to_yaml(), encoding="utf-8")
        report.save(root)
    return report


def check_place(experiment: Experiment, folder: Path) -> None:
    """Raise where a folder is none, or holds a sweep or another experiment: a result never replaces another one's."""
    if folder.exists() and not folder.is_dir():
        raise InvalidInputError(f"cannot write {folder}: it is a file; name a folder")
    if (folder / SAVED_SWEEP).is_file():
        raise InvalidInputError(f"{folder} holds a sweep, whose report this would replace; name another folder")
    if (folder / SAVED).is_file():
        try:
            here = Experiment.from_file(folder / SAVED)
        except (DataError, InvalidInputError):
            here = None
        before, now = {} if here is None else leaves(here.to_dict()), leaves(experiment.to_dict())
        other = [p for p in dict.fromkeys([*before, *now]) if before.get(p) != now.get(p) and p not in _OF_NO_RESULT]
        if here is None or other:
            differ = f" (other there: {', '.join(other[:5])})" if other and here is not None else ""
            raise InvalidInputError(
                f"{folder} holds the result of another experiment{differ}; name another folder, or remove that one by "
                f"'embedrm runs rm {folder}'"
            )


def record_facts(experiment: Experiment, settings: Mapping[str, Any], session: str) -> dict[str, Any]:
    """Return what a record says of its trial beside the result."""
    from embedrm import __version__

    left_out = ("title", "seeds", "sweep")
    return {
        "settings": dict(settings),
        "seed_matters": experiment.seed_matters(),
        "experiment": {k: v for k, v in experiment.to_dict().items() if k not in left_out},
        "session": session,
        "version": __version__,
    }


def seeds_table(rows: list[dict[str, Any]]) -> Table:
    """Records of one experiment: accuracy on each split, and what the fit cost."""
    splits = list(rows[0]["metrics"])
    columns = [Column("seed", "Seed"), *(Column(f"s{i}", split, "share") for i, split in enumerate(splits))]
    # of choices among candidates, where they were judged
    chosen = {split: [m for m in recorded(rows[0]["metrics"][split]) if m not in METRICS] for split in splits}
    columns += [
        Column(f"c{i}_{metric}", f"{split}: {title(metric)}", "number", digits=3)
        for i, split in enumerate(splits)
        for metric in chosen[split]
    ]
    columns += [
        Column("n_train", "training pairs", "integer"),
        Column("parameters", "parameters", "integer", note="numbers learned, without the statistics of features"),
        Column("seconds", "fit", "seconds"),
        Column("core_seconds", "cores", "seconds", note="seconds of all cores during the fit"),
    ]
    cells = [
        {
            "seed": str(row["seed"]),
            **{f"s{i}": row["metrics"][split]["micro"] for i, split in enumerate(splits)},
            **{f"c{i}_{m}": row["metrics"][split][m] for i, split in enumerate(splits) for m in chosen[split]},
            **{key: row[key] for key in ("n_train", "parameters", "seconds", "core_seconds")},
        }
        for row in rows
    ]
    caption = "Accuracy over all pairs (micro)."
    if any(chosen.values()):
        caption += (
            " Gold above a random choice, in standard deviations (sd) within prompts; Spearman's mean over prompts."
        )
    return Table("seeds", "Each seed", columns, cells, caption=caption)


def settings_table(data: Mapping[str, Any]) -> Table:
    """Every setting by its dotted path."""
    rows = [{"path": path, "value": shown(value)} for path, value in leaves(data).items()]
    return Table("settings", "What was set", [Column("path", "Setting"), Column("value", "Value")], rows)


def leaves(data: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested data by dotted paths; empty mappings stay as they are."""
    out: dict[str, Any] = {}
    for key, value in data.items():
        if isinstance(value, Mapping) and value:
            out |= leaves(value, f"{prefix}{key}.")
        else:
            out[f"{prefix}{key}"] = value
    return out


def shown(value: Any) -> str:
    """Return a setting's value as a reader knows it; None is the default."""
    if value is None:
        return "default"
    if isinstance(value, str):
        return value
    if isinstance(value, float) and value == int(value) and abs(value) < 1e6:
        return f"{value:g}"
    if isinstance(value, float):
        return f"{value:.6g}"
    return json.dumps(value, ensure_ascii=False)


def _notes(experiment: Experiment, prepared: Any) -> list[str]:
    notes = []
    if len(experiment.config.seeds) > 1 and not experiment.seed_matters():
        notes.append("Nothing is drawn by the seed in this experiment: the seeds are one fit.")
    if "characters" not in prepared.whole.responses.covariates:
        notes.append("The length-only row is absent: these vectors came without the lengths of their texts.")
    return notes
