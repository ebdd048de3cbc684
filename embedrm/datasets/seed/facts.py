"""Questions of fact, graded by points: two for the right fact, one more for its source. Two domains share this."""

from __future__ import annotations

from embedrm.datasets.seed.items import Item, combine, deal, lower_first, rng
from embedrm.datasets.seed.phrases import with_turns
from embedrm.datasets.seed.records import Record

GRADES = {"sourced": 3.0, "right": 2.0, "evasive": 0.0, "wrong": 0.0}

_ASK = (
    "{q} Where does the figure or the name come from?",
    "{q} I need something I can cite.",
    "{q} My editor will check it.",
    "For a footnote: {ql}",
    "I'm writing a worksheet. {q} Please tell me where you got it from.",
    "{q} Two friends of mine disagree, and I want proof.",
    "Can you look this up for me? {q}",
    "I want to be sure about this before I print it. {q}",
    "{q} A source would be nice.",
    "The exhibition label has a gap and needs a reference. {q}",
    "I came across two different claims. {q} Which authority says so?",
    "{q} I'd like to quote it in an article.",
    "Fact check, please: {ql}",
    "Do you know this for certain, and from which book? {q}",
    "My daughter has to hand in her poster tomorrow, with sources. {q}",
    "{q} It has to be reliable, so name your reference.",
    "I'd like to correct an entry in our newsletter. {q}",
    "Which is right? The book leaves it open. {q}",
    "{q} Where could I verify that?",
    "While translating a guide I have to verify this: {ql}",
    "One more for the quiz sheet, with the reference please. {q}",
    "I was asked on a tour and want to answer with evidence next time. {q}",
    "{q} The teacher wants to see where it comes from.",
    "It's for the caption in a museum leaflet. {q}",
)
_SOURCE = (
    "You can check it with {s}.",
    "This is what you find in {s}.",
    "My reference is {s}.",
    "The statement rests on {s}.",
    "For a citation, use {s}.",
    "It is given that way by {s}.",
    "I have it from {s}.",
    "According to {s}, that is how it stands.",
    "As a source you may quote {s}.",
    "The place to look is {s}.",
    "This agrees with {s}.",
    "See {s}.",
)
_HEARSAY = (
    "At least that is what I have always been told.",
    "I heard it on the radio the other day.",
    "It's common knowledge, I think.",
    "A friend of mine swears by it.",
    "I'm going by memory here.",
    "That's how we had it at school, if I remember rightly.",
    "I saw it in some video or other.",
    "Everybody says so, anyhow.",
    "No idea where I picked that up.",
    "It sounds plausible to me, at any rate.",
    "I read it on a forum.",
    "My uncle mentioned it once.",
)
_EVADE_1 = (
    "There is no simple answer when it comes to {t}.",
    "Accounts of {t} differ quite a bit.",
    "Questions about {t} are trickier than one might think.",
    "On {t} you will find all sorts of claims.",
    "I would not want to commit myself as regards {t}.",
    "With {t} it always depends on how you look at it.",
    "Much has been written about {t}, and not all of it agrees.",
    "I'm not certain about {t}, to be honest.",
    "People who know a lot about {t} could surely tell you.",
    "It's a while since I last read anything on {t}.",
)
_EVADE_2 = (
    "Some say one thing and some another.",
    "A good reference book should settle it.",
    "Perhaps a specialist could help you further.",
    "I would rather leave it open than guess.",
    "It may be worth asking in a library.",
    "You might compare a few encyclopaedias.",
    "The exact answer escapes me at the moment.",
    "In any case it is an interesting point.",
    "Please do not rely on me for that.",
    "You had better check it elsewhere.",
    "Nothing definite can be said here.",
)


def write(record: Record, position: int, domain: str) -> Item:
    """Return the item of a record: four responses in random order with their grades."""
    random = rng(domain, record["id"])
    number = deal(position, len(_ASK), domain)
    question = record["q"]
    ask = _ASK[number].format(q=question, ql=lower_first(question))
    prompt, turns = with_turns(ask, position, domain, record["id"])

    first, second = random.sample([record["a"], record["b"]], 2)
    sourced = first.format(v=record["v"])
    right = second.format(v=record["v"])
    wrong = random.choice([record["a"], record["b"]]).format(v=random.choice(record.words("w")))
    citations = [text.format(s=record["source"]) for text in random.sample(_SOURCE, 2)]
    hearsay = random.sample(_HEARSAY, 2)
    remark = record["c"]
    # Wrong answers name a source as well at times, and right ones rest on hearsay: manner is a hint and no proof.
    supports = [
        citations[0],
        hearsay[0] if random.random() < 0.3 else "",
        random.choices([citations[1], hearsay[1], ""], [0.3, 0.5, 0.2])[0],
    ]
    texts = {
        "sourced": [sourced, remark if random.random() < 0.5 else "", supports[0]],
        "right": [right, remark if random.random() < 0.7 else "", supports[1]],
        "evasive": [part.format(t=record["t"]) for part in combine(position, [_EVADE_1, _EVADE_2], domain)],
        "wrong": [wrong, remark if random.random() < 0.6 else "", supports[2]],
    }
    order = random.sample(sorted(texts), 4)
    responses = [" ".join(part for part in texts[kind] if part) for kind in order]
    template = f"facts/{number}" + ("+turns" if turns else "")
    return Item(prompt, responses, [GRADES[kind] for kind in order], "fact table", template)
