"""``embedrm curve``: what more prompts, pairs or responses bring, for one model or several."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from embedrm.cli import _common as common
from embedrm.cli._common import Console
from embedrm.cli._data import ALL, Reading, load
from embedrm.cli._guard import command_line
from embedrm.errors import InvalidInputError, unknown_name

if TYPE_CHECKING:
    from embedrm.cli._models import Recipe
    from embedrm.datasets import PreferenceDataset
    from embedrm.preferences import EmbeddedPreferences
    from embedrm.reward_model import RewardModel

_CURVE_PANEL, _MODEL_PANEL = "Curve", "Models"
_HELD_OUT = 0.2
# First words of parameters that belong to a part of a head; a model of that name could not be told from the part.
_PARTS = ("objective", "project", "featurizer", "router")


def curve(
    paths: common.Paths = None,
    head: Annotated[
        list[str] | None,
        typer.Option(
            "--head",
            metavar="[NAME=]HEAD",
            help="A head of 'embedrm fit --help'; repeat it for several, with names where one head comes twice. linear by "
            "default.",
            rich_help_panel=_MODEL_PANEL,
            show_default=False,
        ),
    ] = None,
    model: Annotated[
        list[str] | None,
        typer.Option(
            "--model",
            metavar="[NAME=]MODEL",
            help="What treats the domains, made of its own heads: routed, pooled, mixture or adapters, see 'embedrm fit "
            "--help'; repeat it for several, beside --head.",
            rich_help_panel=_MODEL_PANEL,
            show_default=False,
        ),
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="[NAME.]PARAMETER=VALUE",
            help="A parameter as 'embedrm fit' takes it, such as l2=0.1, featurizer.terms=r,p*r or pooled.strength=1; with "
            "several models say whose it is: mlp.l2=0.1. Of NAME=MODEL, NAME.l2=cv is of its head, NAME.pooled.strength=1 "
            "its own.",
            rich_help_panel=_MODEL_PANEL,
            show_default=False,
        ),
    ] = None,
    by: Annotated[
        str,
        typer.Option(
            help="What grows: prompts (whole prompts with all their pairs); pairs (all prompts, more pairs each); responses "
            "(all prompts, more responses each with every pair among them).",
            rich_help_panel=_CURVE_PANEL,
        ),
    ] = "prompts",
    sizes: Annotated[
        str | None,
        typer.Option(
            metavar="N,N,...",
            help="Prompts, pairs a prompt or responses a prompt, such as 100,300,1000,all. By default sizes that double up "
            "to all.",
            rich_help_panel=_CURVE_PANEL,
            show_default=False,
        ),
    ] = None,
    steps: Annotated[
        int | None,
        typer.Option(
            min=2,
            help="How many sizes that double, 6 by default; instead of --sizes.",
            rich_help_panel=_CURVE_PANEL,
            show_default=False,
        ),
    ] = None,
    seeds: Annotated[
        int,
        typer.Option(
            min=1, help="Draws of the training sets, over which the mean is taken.", rich_help_panel=_CURVE_PANEL
        ),
    ] = 3,
    split_train: Annotated[
        str | None,
        typer.Option(
            help="Train on parts of this split. By default train; where data have no splits, a fifth is held out.",
            show_default=False,
        ),
    ] = None,
    split: Annotated[
        str | None, typer.Option(help="Evaluate on this split. By default test.", show_default=False)
    ] = None,
    n_resamples: common.Resamples = 2000,
    random_state: Annotated[
        int, typer.Option(min=0, help="Seed of the draws, of what is held out and of the bootstrap.")
    ] = 0,
    title: Annotated[str, typer.Option(help="Title of the report.")] = "Learning curve",
    encoder: common.Encoder = None,
    encoder_options: common.EncoderOptions = None,
    layers: common.Layers = None,
    sides: common.Sides = ["response", "prompt"],  # noqa: B006
    store: common.Store = None,
    no_store: common.NoStore = False,
    form: common.Form = "auto",
    columns: common.Columns = None,
    on_error: common.OnError = "raise",
    ties: common.Ties = "auto",
    allow_group_leak: common.GroupLeak = False,
    vectors: common.Vectors = None,
    pairs: common.Pairs = None,
    prompt_vectors: common.PromptVectors = None,
    prompt_of: common.PromptOf = None,
    output: common.ReportFolder = None,
    as_json: common.Json = False,
    quiet: common.Quiet = False,
) -> None:
    """Fit models on growing parts of the training data and show what accuracy each part brings.

    'embedrm curve domains --head linear --head mlp --set mlp.l2=0.1 --model pooled'. Training prompts, responses and pairs
    are shown for every size: prompts are the independent units, responses cost encoding, pairs cost labels.
    """
    from embedrm.cli._composites import refuse_early, refuse_without_prompts
    from embedrm.cli._models import describe
    from embedrm.cli._vectors import VectorFiles
    from embedrm.experiments.curve import learning_curve
    from embedrm.experiments.subsets import KINDS

    console = Console(quiet, as_json)
    common.check_writable(output)
    if by not in KINDS:
        raise unknown_name("kind of learning curve (--by)", by, KINDS)
    if sizes is not None and steps is not None:
        raise InvalidInputError("--sizes and --steps contradict each other; give one")
    wanted = None if sizes is None else read_sizes(sizes)
    if split_train == ALL or split == ALL or (split or "test") == (split_train or "train"):
        raise InvalidInputError(
            f"--split-train {split_train or 'train'} and --split {split or 'test'} share their pairs; a learning curve is "
            "evaluated on prompts that it was not fitted on, so name two different splits"
        )
    models = build_models(head, set_, model)
    for name, one in models.items():
        try:
            refuse_early(one)
        except InvalidInputError as error:
            raise InvalidInputError(f"{name}: {error}") from error
    files = VectorFiles(vectors, pairs, prompt_vectors, prompt_of, on_error)
    if files:
        text_only = {
            "--encoder": encoder,
            "--encoder-option": encoder_options,
            "--layers": layers,
            "--store": store,
            "--column": columns,
        }
        given = [name for name, value in text_only.items() if value]
        if paths or given:
            raise InvalidInputError(f"give texts or vectors, not both; got {(paths or given)[0]!r} and --vectors")
        training = files.preferences(split_train, "train", console)
        evaluation = files.preferences(split, "test", console)
        whole = split_train is None and split is None and _same_pairs(training, evaluation)
    else:
        from embedrm.cli._models import make_encoder
        from embedrm.cli._texts import note_truncation
        from embedrm.encoding import encode

        for one in models.values():
            refuse_without_prompts(one, sides)
        data = load(paths, Reading(form, columns, on_error, ties, allow_group_leak), console)
        data, splits = _two_splits(data, split_train, split, console)
        chosen = make_encoder(encoder, encoder_options)
        choice = common.layer_choice(layers, sides)
        kept: Any = common.open_store(store, no_store)
        with console.progress() as progress:
            encoded = encode(data, chosen, layers=choice, sides=tuple(sides), store=kept, progress=progress)
        note_truncation(encoded, console)
        whole = splits is None
        training, evaluation = (encoded, encoded) if splits is None else (encoded.in_split(s) for s in splits)
    notes = []
    if whole:
        training, evaluation = _held_out(training, random_state)
        notes.append(
            f"The data name no splits: {_HELD_OUT:.0%} of the prompt groups, {len(evaluation):,} pairs, were held out for "
            f"evaluation (random_state {random_state})."
        )
        console.note(notes[0])
    try:
        with console.progress() as progress:
            report = learning_curve(
                models,
                training,
                evaluation,
                by=by,
                sizes=wanted,
                steps=6 if steps is None else steps,
                n_seeds=seeds,
                random_state=random_state,
                n_resamples=n_resamples,
                title=title,
                notes=notes,
                command=command_line(),
                progress=progress,
            )
    except ValueError as error:
        # scikit-learn's own word on a parameter that a head hands on to it
        if type(error).__name__ == "InvalidParameterError":
            raise InvalidInputError(str(error)) from error
        raise
    report.provenance["models"] = {name: describe(model) for name, model in models.items()}
    console.report(report, output)


def build_models(
    heads: Sequence[str] | None, items: Sequence[str] | None, composites: Sequence[str] | None = None
) -> dict[str, RewardModel]:
    """Return unfitted models by name.

    Parameters
    ----------
    heads : sequence of str or None
        ``HEAD`` or ``NAME=HEAD`` each; linear where there is no composite either.
    items : sequence of str or None
        ``PARAMETER=VALUE``, which needs no name where there is one model, or ``NAME.PARAMETER=VALUE``.
    composites : sequence of str, optional
        ``MODEL`` or ``NAME=MODEL`` each, of those that treat domains.
    """
    from embedrm.cli._composites import WRAPPERS, domain_models
    from embedrm.cli._models import Recipe

    known = domain_models()
    named: dict[str, Recipe] = {}
    listed = [("head", item) for item in heads or (() if composites else ("linear",))]
    for option, item in (*listed, *(("model", item) for item in composites or ())):
        name, equals, kind = item.partition("=")
        kind = kind if equals else name
        # a model's own name leads its parameters, and would not tell which of two models is meant
        reserved = [part for part in (*_PARTS, *WRAPPERS, *known) if part != kind]
        if not name or not kind or "." in name or name in reserved:
            form = option.upper()
            raise InvalidInputError(
                f"--{option} expects {form} or NAME={form}, with a NAME that has no dot and is none of "
                f"{', '.join(reserved)}; got {item!r}"
            )
        if name in named:
            raise InvalidInputError(f"two models are called {name!r}; name them apart: --{option} NAME={kind}")
        named[name] = Recipe(head=kind) if option == "head" else Recipe(model=kind)
    own: dict[str, list[str]] = {name: [] for name in named}
    for item in items or ():
        name, dot, _ = item.partition("=")[0].partition(".")
        if dot and name in named:
            own[name].append(item if named[name].model == name else item[len(name) + 1 :])
        elif dot and name in WRAPPERS:
            raise InvalidInputError(
                f"--set {item} is for a model around others, and learning curves are of heads and of models that treat "
                "domains; leave it out"
            )
        elif dot and name in known and all(recipe.model != name for recipe in named.values()):
            raise InvalidInputError(f"--set {item} is for a model that is not in this curve; add --model {name}")
        elif dot and name == "router" and all(recipe.model is None for recipe in named.values()):
            raise InvalidInputError(f"--set {item} is for a router, and nothing is routed; add --model routed")
        elif len(named) == 1:
            own[next(iter(named))].append(item)
        elif dot and name not in (*_PARTS, *known):
            raise unknown_name("model in --set", name, named)
        else:
            choices = " or ".join(_addressed(item, name, named[name]) for name in list(named)[:3])
            raise InvalidInputError(
                f"--set {item} does not say which of {len(named)} models it is for; write {choices}"
            )
    return {name: replace(recipe, set=own[name]).build() for name, recipe in named.items()}


def _addressed(item: str, name: str, recipe: Recipe) -> str:
    """Say how to give a parameter to one of several models."""
    from embedrm.cli._composites import domain_models

    parameter = item.partition("=")[0]
    if recipe.model != name or parameter in inspect.signature(domain_models()[name]).parameters:
        return f"--set {name}.{item}"
    # under a model's own name are its own parameters alone
    return f"--model NAME={name} --set NAME.{item}"


def read_sizes(text: str) -> list[int | str]:
    """Read ``100,300,all``; what the numbers may be depends on the data and is checked there."""
    out: list[int | str] = []
    for word in text.split(","):
        word = word.strip()
        if word != ALL and not (word.isascii() and word.isdigit() and len(word) < 16):
            raise InvalidInputError(f"--sizes expects whole numbers or 'all' with commas between them, got {word!r}")
        out.append(word if word == ALL else int(word))
    return out


def _two_splits(
    data: PreferenceDataset, split_train: str | None, split: str | None, console: Console
) -> tuple[PreferenceDataset, tuple[str, str] | None]:
    """Return the pairs of two splits with only the texts that they need; all pairs and None where there are no splits."""
    import numpy as np

    if split_train is None and split is None and set(data.prompts["split"].tolist()) <= {""}:
        return data, None
    names = (split_train or "train", split or "test")
    for name in names:
        n_pairs = data.split(name).n_pairs  # an absent split is an error that names those present
        if not n_pairs:
            raise InvalidInputError(f"no pair is in the split {name!r}; choose another one")
        console.note(f"{n_pairs:,} of {data.n_pairs:,} pairs are in the split {name!r}")
    split_of = data.response_splits()[data.pairs["chosen"].to_numpy()]
    return data.subset(np.isin(split_of.astype(str), names)).compact(), names


def _same_pairs(a: EmbeddedPreferences, b: EmbeddedPreferences) -> bool:
    """Whether both are all pairs of a file that names no splits: the parts of one that does are different rows."""
    import numpy as np

    return np.array_equal(a.pairs, b.pairs)


def _held_out(preferences: EmbeddedPreferences, random_state: int) -> tuple[EmbeddedPreferences, EmbeddedPreferences]:
    from embedrm.numerics.folds import hold_out

    remedy = "name two splits in the data"
    fit, held = hold_out(preferences.groups, _HELD_OUT, random_state, "embedrm curve", remedy)
    return preferences[fit], preferences[held]
