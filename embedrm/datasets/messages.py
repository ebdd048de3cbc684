"""Chat messages and written-out transcripts, taken apart into system text, prompt and response."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from embedrm.datasets.template import Template
from embedrm.datasets.validate import RowError, check_list, check_text, kind_of, shown

Turns = list[tuple[str, str]]

_ROLES = {
    **dict.fromkeys(("user", "human"), "user"),
    **dict.fromkeys(("assistant", "gpt", "bot", "model", "chatbot"), "assistant"),
    **dict.fromkeys(("system", "developer"), "system"),
    **dict.fromkeys(("tool", "function"), "tool"),
}
_HUMAN, _ASSISTANT = "\n\nHuman:", "\n\nAssistant:"


def read_messages(value: object, what: str) -> Turns:
    """Return (role, text) of every message of a list.

    A message is ``{"role", "content"}`` (or ``{"from", "value"}``); its content is a text or a list of blocks
    ``{"type": "text", "text": ...}``, which are joined. Blocks of another type raise, since they cannot be embedded.
    """
    messages = check_list(value, what)
    if not messages:
        raise RowError("empty", f"{what} is an empty list of messages", "give at least one message")
    turns: Turns = []
    for number, message in enumerate(messages, 1):
        name = f"message {number} of {what}"
        if not isinstance(message, Mapping):
            raise RowError("not a message", f"{name} must be an object, got {kind_of(message)}", _MESSAGE_REMEDY)
        role_key, text_key = ("role", "content") if "role" in message else ("from", "value")
        if role_key not in message or text_key not in message:
            raise RowError("not a message", f"{name} lacks role or content", _MESSAGE_REMEDY)
        role = message[role_key]
        known = _ROLES.get(role.strip().casefold()) if isinstance(role, str) else None
        if known is None:
            came = shown(role, 30) if isinstance(role, str) else kind_of(role)
            raise RowError(
                "unknown role", f"{name} has the role {came}", "use the roles system, user, assistant or tool"
            )
        turns.append((known, _content(message[text_key], name)))
    return turns


_MESSAGE_REMEDY = 'write {"role": ..., "content": ...}'


def _content(value: object, what: str) -> str:
    if isinstance(value, (list, tuple)):
        texts = []
        for block in value:
            text = block.get("text") if isinstance(block, Mapping) else None
            if not isinstance(block, Mapping) or block.get("type") != "text" or not isinstance(text, str):
                raise RowError(
                    "not text",
                    f"{what} has a content block that is not text",
                    'keep only blocks {"type": "text", "text": ...}',
                )
            texts.append(text)
        value = "\n\n".join(texts)
    return check_text(value, f"the content of {what}")


def split_system(turns: Turns) -> tuple[str, Turns]:
    """Return the text of the leading system messages and the turns after them."""
    first = next((i for i, (role, _) in enumerate(turns) if role != "system"), len(turns))
    return "\n\n".join(text for _, text in turns[:first]), turns[first:]


def render_prompt(turns: Turns, template: Template, what: str) -> tuple[str, str]:
    """Return (system, prompt) of the messages that come before a response."""
    system, rest = split_system(turns)
    if not rest:
        raise RowError("empty", f"{what} holds no user message", "give the message that the response answers")
    return system, template.turns(rest)


def split_sides(chosen: object, rejected: object, names: tuple[str, str]) -> tuple[Turns, str, str]:
    """Return the messages that both sides begin with, and the last message of each.

    The sides may differ in their last message only, and that must be the assistant's.
    """
    sides = [read_messages(value, name) for value, name in zip((chosen, rejected), names)]
    for turns, name in zip(sides, names):
        if turns[-1][0] != "assistant":
            raise RowError(
                "no response", f"the last message of {name} is not the assistant's", "end it with the response"
            )
    (*before, last), (*other, other_last) = sides
    if before != other:
        raise RowError(
            "prompts differ",
            f"{names[0]} and {names[1]} differ before their last message",
            "the two sides must answer the same conversation",
        )
    return before, last[1], other_last[1]


def is_transcript(value: object) -> bool:
    """Whether a text reads as an hh-rlhf transcript: Human and Assistant turns, each after a blank line."""
    return isinstance(value, str) and _ASSISTANT in value and (_HUMAN in value or value.startswith(_HUMAN[2:]))


def split_transcript(text: str, what: str) -> tuple[str, str]:
    """Split an hh-rlhf transcript at its last Assistant turn into (prompt, response).

    The labels of the turns are taken as the file has them; a prompt of one Human turn loses its label, as in
    :meth:`Template.turns`.
    """
    before, mark, response = text.rpartition(_ASSISTANT)
    if not mark:
        raise RowError("no response", f"{what} has no Assistant turn", "write '\\n\\nAssistant: ' before the response")
    prompt = before.strip()
    human = _HUMAN.strip()
    if prompt.startswith(human) and _HUMAN not in prompt and _ASSISTANT not in prompt:
        prompt = prompt[len(human) :].strip()
    check_text(prompt, f"the prompt of {what}")
    response = response.strip()
    check_text(response, f"the last Assistant turn of {what}")
    return prompt, response


def shared_beginning(chosen: str, rejected: str) -> tuple[str, str, str]:
    """Split two texts after what they have in common, at white space: (prompt, chosen, rejected).

    Both responses keep at least one character, and no word is divided.
    """
    limit = min(len(chosen), len(rejected))
    same = next((i for i in range(limit) if chosen[i] != rejected[i]), limit)
    cut = min(same, len(chosen.rstrip()), len(rejected.rstrip()))
    while cut > 0 and not chosen[cut - 1].isspace():
        cut -= 1
    prompt = chosen[:cut].strip()
    if not prompt:
        raise RowError(
            "no prompt",
            "there is no prompt field, and chosen and rejected share no beginning to take one from",
            "add a prompt",
        )
    return prompt, chosen[cut:].strip(), rejected[cut:].strip()


def as_response(value: Any, what: str) -> str:
    """Return the text of a response that is a string, or a list of one assistant message."""
    if isinstance(value, list):
        turns = read_messages(value, what)
        if len(turns) != 1 or turns[0][0] != "assistant":
            raise RowError("no response", f"{what} must be one assistant message", "keep only the response")
        return turns[0][1]
    return check_text(value, what)
