"""How the parts of a prompt become one text: a plain template, without a template language.

An encoder that was never trained as a chat model gains nothing from special tokens, so the template only joins the
parts with blank lines. It is a value, compared and fingerprinted by its fields, because every field changes the text
and with it the vector.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from embedrm.errors import InvalidInputError

_PARTS = frozenset({"system", "prompt", "context"})


@dataclass(frozen=True)
class Template:
    """A rendering of (system, context, prompt) and of several turns as plain text.

    Parameters
    ----------
    name : str
        What the template is called in reports.
    order : tuple of str
        The order of the parts "system", "prompt" and "context"; a part left out is not rendered. The context comes
        last by default: where a text is too long for the encoder, the tail of a passage is cut and not the question.
    system_label, context_label, response_label : str
        What is put before the part (the response only in the joint text).
    separator : str
        What stands between parts, between turns and before the response.
    turn_labels : tuple of (role, label)
        What is put before a turn of each role when there are several.

    Notes
    -----
    A prompt of one user turn is the text of that turn, without a label, so that a plain prompt and the same prompt
    written as a list of messages are one prompt.
    """

    name: str = "plain"
    order: tuple[str, ...] = ("system", "prompt", "context")
    system_label: str = ""
    context_label: str = ""
    response_label: str = ""
    separator: str = "\n\n"
    turn_labels: tuple[tuple[str, str], ...] = (
        ("user", "Human: "),
        ("assistant", "Assistant: "),
        ("system", "System: "),
        ("tool", "Tool: "),
    )

    def __post_init__(self) -> None:
        if not set(self.order) <= _PARTS or len(set(self.order)) != len(self.order) or "prompt" not in self.order:
            raise InvalidInputError(
                f"Template: order must hold 'prompt' and may hold 'system' and 'context', each once; got {self.order!r}."
            )

    def prompt(self, prompt: str, *, system: str = "", context: str = "") -> str:
        """Return the one text of a prompt; empty parts leave no trace."""
        parts = {
            "prompt": prompt,
            "system": self.system_label + system if system else "",
            "context": self.context_label + context if context else "",
        }
        return self.separator.join(parts[part] for part in self.order if parts[part])

    def joint(self, prompt: str, response: str, *, system: str = "", context: str = "") -> str:
        """Return prompt and response as one text; without a prompt this is the response alone."""
        before = self.prompt(prompt, system=system, context=context)
        return f"{before}{self.separator}{self.response_label}{response}" if before else response

    def turns(self, turns: Sequence[tuple[str, str]]) -> str:
        """Return a conversation as one text.

        Parameters
        ----------
        turns : sequence of (role, text)
            Roles are "user", "assistant", "system" and "tool". A single user turn is rendered without its label.
        """
        if len(turns) == 1 and turns[0][0] == "user":
            return turns[0][1]
        labels = dict(self.turn_labels)
        return self.separator.join(labels[role] + text for role, text in turns)

    def fingerprint(self) -> dict[str, object]:
        """Return every field that changes a rendered text, as JSON values."""
        fields: Mapping[str, object] = asdict(self)
        plain: dict[str, object] = {key: value for key, value in fields.items() if key != "name"}
        plain["order"] = list(self.order)
        plain["turn_labels"] = [list(pair) for pair in self.turn_labels]
        return {"name": self.name, **plain}


PLAIN = Template()
"""The default template: system, prompt, context, response, with a blank line between them and no labels."""
