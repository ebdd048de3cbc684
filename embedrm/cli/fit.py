"""``embedrm fit``: fit a reward model on text or on anyone's vectors, and save it."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

from embedrm.cli import _common as common
from embedrm.cli._common import Console
from embedrm.cli._data import Reading, load, take_split
from embedrm.cli._guard import keep
from embedrm.errors import InvalidInputError, ModelError

if TYPE_CHECKING:
    from embedrm.preferences import EmbeddedPreferences
    from embedrm.reward_model import RewardModel

_MODEL_PANEL = "Model"


class FitCommand(TyperCommand):
    """Lists all that is registered at the end of the help, and only there, since that imports it."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the help with the listing as its end."""
        from embedrm.cli._listing import listing

        # blank lines between paragraphs keep one line each; brackets would be read as markup
        self.epilog = "\n\n".join(line.replace("[", "\\[") for line in listing())
        super().format_help(ctx, formatter)


def fit(
    output: Annotated[str, typer.Option("--output", "-o", metavar="FOLDER", help="Where the model is saved.")],
    paths: common.Paths = None,
    head: Annotated[
        str | None,
        typer.Option(
            help="A head of the list below; linear by default.", rich_help_panel=_MODEL_PANEL, show_default=False
        ),
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="NAME=VALUE",
            help="A parameter of the head, such as l2=0.1, objective=bt-smoothed or objective.flip_rate=0.2; of its "
            "features (featurizer.project=pca, featurizer.residualise=characters); of the model (pooled.strength=1, "
            "mixture.k=3), the router (router.view=6), the ensemble (ensemble.aggregate=lcb) or the calibration "
            "(calibrated.split=validation).",
            rich_help_panel=_MODEL_PANEL,
            show_default=False,
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="What treats the domains: routed, pooled, mixture or adapters, see the list below; by default nothing.",
            rich_help_panel=_MODEL_PANEL,
            show_default=False,
        ),
    ] = None,
    routed: Annotated[
        bool,
        typer.Option(
            "--routed",
            help="The same as --model routed: one head a domain behind a router. Without --head, linear with l2=cv.",
            rich_help_panel=_MODEL_PANEL,
        ),
    ] = False,
    router: Annotated[
        str | None,
        typer.Option(
            help="A router of the list below; without --model, it implies --routed. By default the model's own.",
            rich_help_panel=_MODEL_PANEL,
            show_default=False,
        ),
    ] = None,
    routing: Annotated[
        str | None,
        typer.Option(
            help="soft, hard, top-k, oracle or random; without --model, it implies --routed. By default soft.",
            rich_help_panel=_MODEL_PANEL,
            show_default=False,
        ),
    ] = None,
    members: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="An ensemble of so many of the head, bootstrapped over prompts; with --routed, each expert is one.",
            rich_help_panel=_MODEL_PANEL,
            show_default=False,
        ),
    ] = None,
    calibrate: Annotated[
        str | None,
        typer.Option(
            help="Make margins log-odds on held-out prompts, around all the rest: platt, temperature or isotonic.",
            rich_help_panel=_MODEL_PANEL,
            show_default=False,
        ),
    ] = None,
    terms: Annotated[
        str | None,
        typer.Option(
            help="Features, such as r,p*r with r a response view and p a prompt view; r by default.",
            rich_help_panel=_MODEL_PANEL,
            show_default=False,
        ),
    ] = None,
    response: Annotated[
        str | None,
        typer.Option(
            help="Response views of the features, such as 3,6 or joint:6; all that were encoded by default.",
            rich_help_panel=_MODEL_PANEL,
            show_default=False,
        ),
    ] = None,
    prompt: Annotated[
        str | None,
        typer.Option(
            help="Prompt views of the features; all that were encoded by default.",
            rich_help_panel=_MODEL_PANEL,
            show_default=False,
        ),
    ] = None,
    scale: Annotated[
        str | None,
        typer.Option(
            help="Scale of the features: none, rms or standard; rms by default.",
            rich_help_panel=_MODEL_PANEL,
            show_default=False,
        ),
    ] = None,
    split: Annotated[
        str | None,
        typer.Option(
            help="Fit on this split, or 'all'. By default train, or every pair of data without splits.",
            show_default=False,
        ),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a model saved in FOLDER before.")] = False,
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
    as_json: common.Json = False,
    quiet: common.Quiet = False,
) -> None:
    """Fit a reward model and save it.

    On text: 'embedrm fit domains --output runs/linear --set l2=cv'. On your own vectors: 'embedrm fit --vectors a.npy
    --pairs pairs.parquet --output runs/mine'.
    """
    from embedrm.cli._composites import refuse_early, refuse_without_prompts
    from embedrm.cli._models import Recipe
    from embedrm.cli._vectors import VectorFiles

    console = Console(quiet, as_json)
    folder = Path(output)
    if folder.exists() and not (overwrite and (folder / "model.json").is_file()):
        remedy = "it holds no model, so choose another one" if overwrite else "choose another one, or give --overwrite"
        raise ModelError(f"{output} exists already; {remedy}. Nothing was done")
    common.check_writable(output)
    recipe = Recipe(head, set_, model, routed, router, routing, members, calibrate, terms, response, prompt, scale)
    reward_model = recipe.build()
    refuse_early(reward_model)
    held_split = _calibration_split(reward_model, split)
    files = VectorFiles(vectors, pairs, prompt_vectors, prompt_of, on_error)
    started = time.perf_counter()
    if files:
        if paths:
            raise InvalidInputError(f"give texts or vectors, not both; got {paths[0]!r} and --vectors")
        text_only = {
            "--encoder": encoder,
            "--encoder-option": encoder_options,
            "--layers": layers,
            "--store": store,
            "--column": columns,
        }
        given = [name for name, value in text_only.items() if value]
        if given:
            raise InvalidInputError(f"{', '.join(given)} is for texts; leave it out with --vectors")
        preferences = files.preferences(split, "train", console)
        held_out = None if held_split is None else files.preferences(held_split, held_split, console)
        _fit(reward_model, preferences, held_out, console)
        from embedrm.persistence import save_model

        save_model(
            reward_model, folder, overwrite=overwrite, extra={"training": _training(preferences, held_out, held_split)}
        )
    else:
        from embedrm.cli._models import make_encoder
        from embedrm.cli._texts import note_truncation
        from embedrm.encoding import encode
        from embedrm.pipeline import RewardPipeline

        refuse_without_prompts(reward_model, sides)
        data = load(paths, Reading(form, columns, on_error, ties, allow_group_leak), console)
        parts = [take_split(data, split, "train", console)]
        if held_split is not None:
            parts.append(take_split(data, held_split, held_split, console))
        chosen = make_encoder(encoder, encoder_options)
        choice = common.layer_choice(layers, sides)
        kept: Any = common.open_store(store, no_store)
        with console.progress() as progress:
            encoded = [
                encode(part, chosen, layers=choice, sides=tuple(sides), store=kept, progress=progress) for part in parts
            ]
        for part in encoded:
            note_truncation(part, console)
        preferences, held_out = encoded[0], encoded[1] if held_split is not None else None
        _fit(reward_model, preferences, held_out, console)
        pipeline = RewardPipeline(chosen, reward_model, layers=choice, sides=tuple(sides), store=kept)
        pipeline.training = _training(preferences, held_out, held_split)
        pipeline.save(folder, overwrite=overwrite)
    keep(f"the model is in {output}")
    facts = _facts(reward_model, preferences, held_out, output, time.perf_counter() - started)
    console.result(facts, _text(facts))


def _calibration_split(model: RewardModel, split: str | None) -> str | None:
    """Return the split that the model is calibrated on, where it is one; its pairs are read beside those to fit on."""
    from embedrm.composites.calibrated import CalibratedRewardModel

    held = model.split if isinstance(model, CalibratedRewardModel) else None
    if held is not None and held == (split or "train"):
        raise InvalidInputError(
            f"calibrated.split={held} is the split that the model is fitted on, on which it is too sure; name another one, "
            "or leave calibrated.split out to calibrate out of fold"
        )
    if held is not None and split == "all":
        raise InvalidInputError(
            f"--split all and calibrated.split={held} contradict each other; name the split to fit on, or leave "
            "calibrated.split out to calibrate out of fold"
        )
    return held


def _training(
    preferences: EmbeddedPreferences, held_out: EmbeddedPreferences | None, split: str | None
) -> dict[str, Any]:
    """Facts of the training data that are saved with a model, and of those that calibrated it."""
    from embedrm.pipeline import training_facts

    facts = training_facts(preferences)
    return facts if held_out is None else {**facts, "calibration": {"split": split, **training_facts(held_out)}}


def _fit(
    model: RewardModel, preferences: EmbeddedPreferences, held_out: EmbeddedPreferences | None, console: Console
) -> None:
    from embedrm.cli._models import describe
    from embedrm.composites.calibrated import CalibratedRewardModel

    with console.working(f"fitting {describe(model)} on {len(preferences):,} pairs"):
        try:
            if held_out is not None and isinstance(model, CalibratedRewardModel):
                model.fit_apart(preferences, held_out)
            else:
                model.fit(preferences)
        except ValueError as error:
            # scikit-learn's own word on a parameter that a head or router hands on to it
            if type(error).__name__ == "InvalidParameterError":
                raise InvalidInputError(f"{describe(model)}: {error}") from error
            raise


def _facts(
    model: RewardModel,
    preferences: EmbeddedPreferences,
    held_out: EmbeddedPreferences | None,
    output: str,
    seconds: float,
) -> dict[str, Any]:
    from embedrm.cli._models import bias_risk, describe, learned

    risk = bias_risk(model)
    labelled = preferences[~preferences.ties]
    info = preferences.responses.info
    return {
        "folder": output,
        "model": describe(model),
        "views": list(model.required_views()),
        "fitted": learned(model),
        "pairs": len(preferences),
        "ties": int(preferences.ties.sum()),
        **({} if held_out is None else {"calibration_pairs": len(held_out)}),
        "domains": list(preferences.domains),
        "training_accuracy": model.score(labelled) if len(labelled) else None,
        "data": info.get("data"),
        "encoder": info.get("encoder"),
        "truncation": info.get("truncation"),
        "seconds": round(seconds, 3),
        **({} if risk is None else {"bias_risk": risk}),
    }


def _text(facts: dict[str, Any]) -> str:
    ties = f" ({facts['ties']:,} of them ties)" if facts["ties"] else ""
    accuracy = facts["training_accuracy"]
    found = [
        f"{name.rstrip('_')} {value:.4g}" if isinstance(value, float) else f"{name.rstrip('_')} {value}"
        for name, value in facts["fitted"].items()
        if isinstance(value, (int, float, str)) and not isinstance(value, bool)
    ]
    calibrated = facts.get("calibration_pairs")
    lines = [
        f"model     {facts['model']}",
        f"pairs     {facts['pairs']:,}{ties}, domains: {', '.join(facts['domains'])}",
        *([f"held out  {calibrated:,} pairs, which the model is calibrated on"] if calibrated else []),
        f"views     {', '.join(facts['views']) or 'none'}",
        *([f"fitted    {', '.join(found)}"] if found else []),
        f"accuracy  {'-' if accuracy is None else format(accuracy, '.3f')} on these training pairs",
        *([f"note      {facts['bias_risk']}"] if "bias_risk" in facts else []),
        f"saved in  {facts['folder']} ({facts['seconds']:.1f} s)",
    ]
    return "\n".join(lines)
