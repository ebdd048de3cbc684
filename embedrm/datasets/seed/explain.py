"""Questions that want a full explanation: it beats a bare answer, and beats talk of the same length without content."""

from __future__ import annotations

import re

from embedrm.datasets.seed.items import Item, combine, deal, lower_first, rng, words
from embedrm.datasets.seed.phrases import with_turns
from embedrm.datasets.seed.records import Record

_ASK = (
    "I'd like to really understand {e}. Can you take me through it?",
    "{q} I'm teaching this next week, so I need the reasoning as well.",
    "My students keep asking me {e}. How would you put it to them?",
    "The short answer never satisfied me: {ql}",
    "{q} I know the one-liner from school, but what's actually going on underneath?",
    "Walk me through it slowly, please. {q}",
    "I have an oral exam on Friday and can't put it into my own words yet. {q}",
    "{q} Take as much space as you need.",
    "Explain to me {e}, with an example if there is one.",
    "I nodded when someone told me {e}, but I didn't follow a word. Could you try?",
    "{q} Give me the mechanism and not just the name for it.",
    "Suppose I know nothing at all about the subject. {q}",
    "We're writing a chapter on this for the school book and need it explained fully. {q}",
    "I read two articles and I'm still puzzled about {e}. Could you lay it out at length?",
    "{q} Start from the basics and build up.",
    "Sit down with me and go through it in detail: {ql}",
    "My grandfather wants to know {e}, and he won't be fobbed off with one sentence.",
    "{q} I'd love a thorough account that gets to the bottom of it.",
    "Could you teach me {e}, properly and with the background?",
    "How would a good lecturer explain it, step by step, if I asked her {e}?",
    "{q} And please don't keep it brief, I've got the whole evening.",
    "For my video script I need to lay out {e}, step by step.",
    "I've never seen a proper account of {e}. Would you write one?",
    "{q} I want the whole chain of reasons, not just a label.",
    "It's been bugging me for years, so please go into depth: {ql}",
    "Quick question, long answer welcome: {ql}",
    "Let's say I wanted to convince a sceptic with a full argument. {q}",
    "{q} I'd rather have too much detail than too little.",
    "Help me see the whole picture, with all the links: {ql}",
    "As an apprentice I give long tours and have to explain to visitors {e}. What do I tell them?",
    "I think I've got the rough idea and want to understand the details: {ql}",
    "{q} Please go through the steps one after another.",
    "My notes from the lecture make no sense, so explain it again from scratch. {q}",
    "I want to understand it so well that I could derive it myself. {q}",
)
_OPEN = (
    "That is a fascinating subject, and there is a great deal that could be said about {np}.",
    "When it comes to {np}, there are many aspects that one ought to keep in mind.",
    "People have been thinking about {np} for a long time, and the discussion is by no means over.",
    "To begin with, {np} can be looked at from quite different angles.",
    "You are right to ask about {np}, because the subject touches on so many areas of life.",
    "Few topics are as rich and rewarding as {np}, as anybody in the field will confirm.",
    "Whole shelves of books have been written about {np}, and new ones appear every year.",
    "Understanding {np} is a journey more than a destination.",
    "There is hardly anybody who has not come across {np} in one form or another.",
    "Let us take a closer look at {np}, a subject that is more complex than it seems at first.",
)
_MIDDLE = (
    "Several factors come together here, and each of them influences the others in its own way.",
    "Depending on the situation, one factor or another may turn out to be the more important one.",
    "Experts have put forward a number of theories, some of which are widely accepted nowadays.",
    "It helps to distinguish between the general principle and the particular case.",
    "Much has changed in this field over the years, and more changes are to be expected.",
    "In practice things are often less clear than they appear in theory.",
    "Of course there are exceptions, as there always are in matters of this kind.",
    "The details can be rather technical, but the basic idea is not hard to grasp.",
    "What matters most is to see how the various parts fit together as a whole.",
    "Many people have misconceptions about it, which is perfectly understandable.",
    "A certain process is at work, and this process leads in the end to the result that we observe.",
    "Under suitable conditions the effect is stronger, under others it may be weaker.",
    "Modern research has brought new insights and has also raised new questions.",
    "It would be wrong to reduce everything to one single cause.",
    "Both the causes and the consequences deserve to be considered with care.",
    "History offers plenty of examples, and so does everyday life.",
    "Some things happen quickly here while others take their time.",
    "One should not forget that there is a close connection with other topics.",
    "From a scientific point of view it all makes perfect sense.",
    "Different textbooks set different priorities, and each has its merits.",
    "It all rests on a few fundamental laws that apply everywhere.",
    "There is an interplay of forces which is in constant motion.",
    "Those who have studied it for years still find something new in it.",
    "Without going too deep, one can say that it is a matter of balance.",
    "The underlying mechanism does precisely what one would expect of it.",
    "A good grasp of the basics is always an advantage.",
    "There are advantages and drawbacks, and they have to be weighed up.",
    "Naturally, the circumstances have to be taken into account as well.",
)
_CLOSE = (
    "All of this shows how important the subject is.",
    "In short, it is a complex matter that deserves our full attention.",
    "I hope that this gives you a first impression.",
    "Anyone who wants to know more will find plenty of material.",
    "So there is no simple answer, but there is every reason to stay curious.",
    "In the end everyone has to form an opinion of their own.",
    "As you can see, everything is connected with everything else.",
    "That, in essence, is what it is all about.",
    "With this in mind, you should be well prepared for further reading.",
    "It will be exciting to see how it develops.",
)


def _talk(record: Record, position: int) -> str:
    """Return a start of the explanation that peters out into sentences about nothing, as long as the whole of it."""
    random = rng("explain", record["id"])
    opening, closing = combine(position, [_OPEN, _CLOSE], "explain talk")
    begun = random.random() < 0.6
    sentences = [_first_sentence(record["long"]) if begun else opening.format(np=record["np"])]
    target = words(record["long"]) * random.uniform(0.75, 1.3) - words(closing)
    for sentence in random.sample(_MIDDLE, len(_MIDDLE)):
        if sum(map(words, sentences)) + words(sentence) / 2 > target:
            break
        sentences.append(sentence)
    return " ".join([*sentences, closing])


def _first_sentence(text: str) -> str:
    return re.split(r"(?<=[.?!]) ", text, maxsplit=1)[0]


def write(record: Record, position: int) -> Item:
    """Return the item of a record: the explanation, the bare answer, and talk without content."""
    number = deal(position, len(_ASK), "explain")
    question = record["q"]
    ask = _ASK[number].format(q=question, ql=lower_first(question), e=record["e"])
    prompt, turns = with_turns(ask, position, "explain", record["id"])
    responses = [record["long"], record["short"], _talk(record, position)]
    template = f"explain/{number}" + ("+turns" if turns else "")
    return Item(prompt, responses, [1.0, 0.0, 0.0], "full and with the key terms", template, [(0, 1), (0, 2)])
