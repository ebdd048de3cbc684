"""Small token states for tests of prefix heads: random ones, and ones of a linear recurrence whose rewards are known."""

import itertools

import numpy as np

from embedrm.encoders.token_states import TokenStates


def lengths_to_offsets(lengths):
    return np.concatenate([[0], np.cumsum(np.asarray(lengths) + 1)]).astype(np.int64)


def random_states(n_texts=60, dim=6, vocab=20, seed=0, longest=8, lengths=None, model="lm"):
    """States that have nothing to do with the tokens; BOS is token 0 and does not occur elsewhere."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, longest + 1, n_texts) if lengths is None else np.asarray(lengths)
    offsets = lengths_to_offsets(lengths)
    ids = rng.integers(1, vocab, offsets[-1]).astype(np.int32)
    ids[offsets[:-1]] = 0
    states = rng.standard_normal((offsets[-1], dim)).astype(np.float32)
    embeddings = rng.standard_normal((vocab, dim)).astype(np.float32)
    return TokenStates(states, ids, offsets, model, vocab), embeddings


def running_means(n_texts=80, dim=5, vocab=12, seed=0, longest=6):
    """States (1, mean of the token vectors read); with them W can hold a token's own reward. Returns (states, e)."""
    rng = np.random.default_rng(seed)
    e = np.zeros((vocab, dim + 1), dtype=np.float32)
    e[:, 1:] = rng.standard_normal((vocab, dim))
    lengths = rng.integers(1, longest + 1, n_texts)
    offsets = lengths_to_offsets(lengths)
    ids = rng.integers(1, vocab, offsets[-1]).astype(np.int32)
    ids[offsets[:-1]] = 0
    states = np.ones((offsets[-1], dim + 1), dtype=np.float32)
    for first, last in itertools.pairwise(offsets):
        total = np.cumsum(e[ids[first:last], 1:], axis=0)
        states[first:last, 1:] = total / np.arange(1, last - first + 1)[:, None]
    return TokenStates(states, ids, offsets, "lm", vocab), e


def sums_of_tokens(n_texts=80, dim=5, vocab=12, seed=0, longest=6):
    """States (1, sum of the token vectors read): a linear reward of a prefix is then exactly in ARM's class."""
    states, e = running_means(n_texts, dim, vocab, seed, longest)
    made = np.array(states.states)
    for first, last in zip(states.offsets[:-1], states.offsets[1:]):
        made[first:last, 1:] *= np.arange(1, last - first + 1)[:, None]
    return TokenStates(made, states.ids, states.offsets, "lm", vocab), e


def labels_of(states, n_attributes=1, seed=1, missing=0.0):
    rng = np.random.default_rng(seed)
    labels = rng.random((len(states), n_attributes))
    labels[rng.random(labels.shape) < missing] = np.nan
    return labels


def positions_by_hand(states, shift):
    """(text, t, row read, token t) of every position, t from 1, one by one."""
    out = []
    for i in range(len(states)):
        first, last = int(states.offsets[i]), int(states.offsets[i + 1])
        out += [(i, t, first + t - shift, int(states.ids[first + t])) for t in range(1, last - first)]
    return out


def with_states(states, matrix, model=None):
    return TokenStates(matrix, states.ids, states.offsets, model or states.model, states.vocab_size)
