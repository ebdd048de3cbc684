"""``embedrm generate``: texts of a language model, steered by a reward of every next token."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from embedrm.cli import _common as common
from embedrm.cli._common import Console
from embedrm.errors import InvalidInputError, unknown_name

if TYPE_CHECKING:
    from embedrm.decoding.generation import Generation
    from embedrm.decoding.processors import RewardProcessor
    from embedrm.language_models import LanguageModel

_MODEL_PANEL, _DRAW_PANEL = "Model and reward", "Drawing"
_METHODS = ("arm", "rad")


def generate(
    prompts: Annotated[list[str], typer.Argument(metavar="PROMPT", help="Beginnings of texts.")],
    attribute: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME[=WEIGHT]",
            help="Where to: positive, negative, polite, rude, or an attribute of --head; a negative weight steers away. "
            "Repeat it for several. By default positive.",
            rich_help_panel=_MODEL_PANEL,
            show_default=False,
        ),
    ] = None,
    beta: Annotated[
        float, typer.Option(help="Weight of the reward; 0 is no steering.", rich_help_panel=_MODEL_PANEL)
    ] = 5.0,
    lm: Annotated[
        str,
        typer.Option(
            help="The language model: bundled (small, trained here at first use), a folder, or a hub name such as gpt2.",
            rich_help_panel=_MODEL_PANEL,
        ),
    ] = "bundled",
    method: Annotated[
        str | None,
        typer.Option(
            help="arm: all tokens from one state; rad: one state for each candidate. By default arm, or what --head is.",
            rich_help_panel=_MODEL_PANEL,
            show_default=False,
        ),
    ] = None,
    head: Annotated[
        str | None,
        typer.Option(
            metavar="FOLDER",
            help="A saved ARM or RAD head of this language model. By default one for sentiment and politeness, trained on "
            "bundled texts at first use.",
            rich_help_panel=_MODEL_PANEL,
            show_default=False,
        ),
    ] = None,
    top_k: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Only the k most probable tokens. By default 20, unless there is --top-p.",
            show_default=False,
            rich_help_panel=_DRAW_PANEL,
        ),
    ] = None,
    top_p: Annotated[
        float | None,
        typer.Option(
            help="Only the most probable tokens that hold this probability; with --top-k, of those k.",
            show_default=False,
            rich_help_panel=_DRAW_PANEL,
        ),
    ] = None,
    n: Annotated[int, typer.Option("--n", min=1, help="Texts for each prompt.", rich_help_panel=_DRAW_PANEL)] = 4,
    max_new_tokens: Annotated[
        int, typer.Option(min=1, help="Tokens after the prompt, at most.", rich_help_panel=_DRAW_PANEL)
    ] = 24,
    greedy: Annotated[
        bool, typer.Option("--greedy", help="The best token at each step, no draws.", rich_help_panel=_DRAW_PANEL)
    ] = False,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the draws.", rich_help_panel=_DRAW_PANEL)] = 0,
    compare: Annotated[
        bool, typer.Option("--compare", help="Show texts of beta 0 beside them.", rich_help_panel=_DRAW_PANEL)
    ] = False,
    as_json: common.Json = False,
    quiet: common.Quiet = False,
) -> None:
    """Continue prompts with a language model, steered towards an attribute.

    'embedrm generate --attribute positive --beta 5 --compare "The film was"'.
    """
    from embedrm.cli._attribute_heads import attribute_head, attribute_weights, method_of, saved_head
    from embedrm.language_models import load_language_model

    console = Console(quiet, as_json)
    if method is not None and method not in _METHODS:
        raise unknown_name("method", method, _METHODS)
    _check_before_work(attribute or ["positive"], beta, top_k, top_p, head)
    if greedy and n > 1:
        n = _one(n, console)
    with console.progress() as progress:
        # only the bundled ones are trained, and so have progress to show
        model = load_language_model(lm, **({"progress": progress} if lm.partition(":")[0] == "bundled" else {}))
    console.note(f"language model: {model.describe()}")
    fitted = attribute_head(model, method or "arm", console) if head is None else saved_head(head, model)
    if method is not None and method != method_of(fitted):
        raise InvalidInputError(
            f"--method {method} and the head in {head}, which is for {method_of(fitted)}; leave one out"
        )
    weights = attribute_weights(attribute or ["positive"], fitted)
    top_k = 20 if top_k is None and top_p is None else top_k
    betas = [0.0, beta] if compare and beta != 0.0 else [beta]
    texts: dict[float, list[list[Generation]]] = {}
    for one in betas:
        processor = _processor(model, fitted, one, weights, top_k, top_p)
        texts[one] = _texts(model, prompts, processor, n, max_new_tokens, greedy, seed, console)
        processor.close()
    console.note(f"{processor.describe()}; the reward is {_told(weights)}")
    drawn = {"greedy": greedy, "top_k": top_k, "top_p": top_p, "seed": seed}
    facts = {"guidance": processor.describe(), **drawn, **_facts(model, fitted, weights, texts)}
    console.result(facts, _text(prompts, texts))


def _check_before_work(
    attribute: list[str], beta: float, top_k: int | None, top_p: float | None, head: str | None
) -> None:
    """Raise for what no model is needed to refuse: the bundled one may have to be trained first."""
    import math
    from types import SimpleNamespace

    from embedrm.cli._attribute_heads import attribute_weights
    from embedrm.decoding.candidates import CandidateFilter

    if not math.isfinite(beta):
        raise InvalidInputError(f"--beta expects a finite number, got {beta}; 0 is no guidance")
    CandidateFilter(top_k, top_p)
    if head is None:
        from embedrm.decoding.guidance_training import WORDS

        known: Any = SimpleNamespace(attributes_=sorted({name for name, _ in WORDS.values()}))
        attribute_weights(attribute, known)


def _one(n: int, console: Console) -> int:
    console.note(f"--greedy draws nothing, so that {n} texts would be alike; one is written for each prompt")
    return 1


def _processor(
    lm: LanguageModel, head: Any, beta: float, weights: dict[str, float], top_k: int | None, top_p: float | None
) -> RewardProcessor:
    from embedrm.cli._attribute_heads import method_of
    from embedrm.decoding.processors import ARMProcessor, RADProcessor

    kind = ARMProcessor if method_of(head) == "arm" else RADProcessor
    return kind(lm, head, beta, top_k=top_k, top_p=top_p, weights=weights)


def _texts(
    lm: LanguageModel,
    prompts: list[str],
    processor: RewardProcessor,
    n: int,
    max_new_tokens: int,
    greedy: bool,
    seed: int,
    console: Console,
) -> list[list[Generation]]:
    from embedrm.decoding import generation

    with console.progress() as progress:
        return generation.generate(
            lm,
            prompts,
            processor=processor,
            n=n,
            max_new_tokens=max_new_tokens,
            greedy=greedy,
            seed=seed,
            progress=progress,
        )


def _told(weights: dict[str, float]) -> str:
    return ", ".join(name if weight == 1.0 else f"{weight:g} times {name}" for name, weight in weights.items())


def _facts(lm: LanguageModel, head: Any, weights: dict[str, float], texts: dict[float, list[list[Generation]]]) -> Any:
    from embedrm.cli._attribute_heads import method_of

    rows = [
        {"beta": beta, "prompt": one.prompt, "text": one.text, "tokens": len(one.ids), "ended": one.ended}
        for beta, found in texts.items()
        for row in found
        for one in row
    ]
    return {"language_model": lm.describe(), "method": method_of(head), "weights": weights, "texts": rows}


def _text(prompts: list[str], texts: dict[float, list[list[Generation]]]) -> str:
    lines: list[str] = []
    for i, prompt in enumerate(prompts):
        for beta, found in texts.items():
            lines += ["", f"{prompt or '(no prompt)'}  (beta {beta:g})"]
            for number, one in enumerate(found[i], 1):
                # further lines of a text stand under its first
                body = (prompt + one.text).strip().replace("\n", "\n    ")
                lines.append(f"{number:>2}  {body}{'' if one.ended else ' ...'}")
    return "\n".join(lines[1:])
