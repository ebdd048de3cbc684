"""Scales of annotators, and pools of them: the rates that theory gives, votes, and the ceiling they leave."""

from itertools import product

import numpy as np
import pytest
from scipy.special import expit

from embedrm import Annotator, AnnotatorPool, EmbeddedPreferences, PreferenceDataset, annotate, draw_pairs
from embedrm.errors import InvalidInputError
from embedrm.evaluation import ceiling_facts
from embedrm.numerics.annotation import KEY
from embedrm.numerics.annotator_pool import gaussian_agreement, known_annotator

CAREFUL, CARELESS = Annotator(beta=3.0), Annotator(beta=0.5)


def lists(n_prompts=2000, k=2, seed=0, std=1.0):
    gold = np.random.default_rng(seed).normal(scale=std, size=(n_prompts, k))
    return EmbeddedPreferences.from_arrays(np.zeros((n_prompts, k, 1)), rewards=gold)


def wrong(prefs):
    gold = prefs.responses.gold
    return gold[prefs.pairs[:, 0]] < gold[prefs.pairs[:, 1]]


def close(share, expected, n):
    return abs(share - expected) < 4 * np.sqrt(expected * (1 - expected) / n)


# the table of the study: beta^2 times the variance of the difference, and Q
TABLE = [(1, 0.6749), (2, 0.7251), (4, 0.7781), (10, 0.8428)]


@pytest.mark.parametrize(("variance", "quality"), TABLE)
def test_flips_of_gaussian_utilities_come_as_the_study_tells(variance, quality):
    # two utilities of variance 1/2 differ by variance 1
    clean = lists(100_000, std=np.sqrt(0.5))
    annotator = Annotator(beta=float(np.sqrt(variance)))
    assert gaussian_agreement(annotator, 1.0) == pytest.approx(quality, abs=1.5e-4)
    assert close(1 - wrong(annotate(clean, annotator)).mean(), quality, len(clean))


def test_agreement_of_gaussian_differences_is_the_integral():
    z = np.random.default_rng(0).normal(size=2_000_000)
    pool = AnnotatorPool((CAREFUL, Annotator(0.2)), (1, 3), votes=3)
    for one in (Annotator(0.1, 2.0), pool):
        assert gaussian_agreement(one, 1.7) == pytest.approx(one.agreement(1.7 * z).mean(), abs=1e-3)
    assert gaussian_agreement(Annotator(), 1.0) == pytest.approx(1, abs=1e-9)


class TestScale:
    def test_only_the_ratio_of_beta_to_scale_counts(self):
        delta = np.linspace(-3, 3, 7)
        assert np.allclose(Annotator(beta=6.0, scale=6.0).agreement(delta), Annotator(beta=1.0).agreement(delta))
        assert Annotator(beta=1.0, scale=6.0).agreement(3.0) == pytest.approx(expit(0.5))

    def test_the_global_standard_deviation_is_that_of_all_gold(self):
        clean = lists(300, 4, std=7.0)
        part = clean[:20]
        noisy = annotate(part, Annotator(beta=2.0, scale="global-std"), random_state=3)
        scale = clean.responses.gold.std()
        assert noisy.responses.info[KEY]["scale"] == pytest.approx(scale)
        assert noisy.responses.info[KEY]["scale_rule"] == "global-std"
        stated = annotate(part, Annotator(beta=2.0, scale=float(scale)), random_state=3)
        assert np.array_equal(noisy.pairs, stated.pairs)
        assert "scale_rule" not in stated.responses.info[KEY]

    def test_labels_do_not_change_with_the_unit_of_gold(self):
        gold = np.random.default_rng(0).normal(size=(200, 3))
        made = [
            annotate(
                EmbeddedPreferences.from_arrays(np.zeros((200, 3, 1)), rewards=unit * gold + 5),
                Annotator(beta=1.0, scale="global-std"),
            ).pairs
            for unit in (1.0, 1000.0)
        ]
        assert np.array_equal(*made)

    def test_a_scale_that_is_no_number_yet_gives_no_probability(self):
        with pytest.raises(InvalidInputError, match="on_scale_of"):
            Annotator(beta=1.0, scale="global-std").agreement([1.0])
        # without beta nothing is scaled
        assert Annotator(0.1, scale="global-std").agreement([1.0]) == 0.9
        with pytest.raises(InvalidInputError, match="standard deviation of 0"):
            Annotator(beta=1.0, scale="global-std").on_scale_of([2.0, 2.0, np.nan])

    @pytest.mark.parametrize("scale", [0, -1.0, np.nan, "std", True, None])
    def test_impossible_scales_are_refused(self, scale):
        with pytest.raises(InvalidInputError, match="scale must be"):
            Annotator(beta=1.0, scale=scale)

    def test_facts_give_the_annotator_again_and_old_ones_are_on_scale_one(self):
        for one in (Annotator(), Annotator(0.1), Annotator(0.1, 2.0, 6.0), Annotator(beta=1, scale="global-std")):
            again = known_annotator({KEY: one.to_info()})
            assert again == one or one.beta is None
        assert known_annotator({KEY: {"flip_rate": 0.0, "beta": 2.0}}) == Annotator(beta=2.0)
        assert known_annotator({}) is None


class TestErrorRate:
    @pytest.mark.parametrize("rate", [0.001, 0.05, 0.38, 0.499])
    def test_the_rate_asked_for_is_the_expected_one(self, rate):
        delta = np.random.default_rng(0).normal(size=500) * 30
        for scale in (1.0, 6.0):
            one = Annotator.for_error_rate(delta, rate, scale=scale)
            assert 1 - one.agreement(delta).mean() == pytest.approx(rate, rel=1e-6)
            assert one.scale == scale

    def test_none_is_perfect_and_impossible_ones_are_refused(self):
        assert Annotator.for_error_rate([1.0], 0).exact
        for delta, rate, message in (([1.0], 0.5, "error_rate"), ([0.0], 0.1, "0 diff"), ([np.nan], 0.1, "needs gold")):
            with pytest.raises(InvalidInputError, match=message):
                Annotator.for_error_rate(delta, rate)


class TestPool:
    def test_perfect_labels_are_left(self):
        clean = lists(50, 4)
        for annotator in (Annotator(), AnnotatorPool((Annotator(), Annotator()), votes=3)):
            made = annotate(clean, annotator)
            assert np.array_equal(made.pairs, clean.pairs)
            assert (made.outcome == 1).all()
            assert annotator.exact

    def test_agreement_is_the_mean_by_shares(self):
        pool = AnnotatorPool((Annotator(0.1), Annotator(0.4)), (3, 1))
        assert pool.agreement([1.0, -2.0]) == pytest.approx([0.75 * 0.9 + 0.25 * 0.6] * 2)
        assert not pool.exact

    @pytest.mark.parametrize("votes", [1, 2, 3, 4, 5])
    def test_majorities_by_enumeration(self, votes):
        pool, p = AnnotatorPool((Annotator(0.3),), votes=votes), 0.7
        right = wrong_ = 0.0
        for answers in product((True, False), repeat=votes):
            chance = p ** sum(answers) * (1 - p) ** (votes - sum(answers))
            right += chance * (2 * sum(answers) > votes)
            wrong_ += chance * (2 * sum(answers) < votes)
        assert pool.agreement(1.0) == pytest.approx(right / (right + wrong_))

    @pytest.mark.parametrize("by", ["pair", "prompt"])
    def test_each_annotator_errs_at_its_own_rate(self, by):
        clean = lists(20_000, 2)
        noisy = annotate(clean, AnnotatorPool((CAREFUL, CARELESS), (0.25, 0.75), by=by), random_state=1)
        facts = noisy.responses.info[KEY]
        delta = clean.margin
        assert sum(facts["answers"]) == len(clean)
        assert close(facts["answers"][0] / len(clean), 0.25, len(clean))
        for one, n, mistakes in zip((CAREFUL, CARELESS), facts["answers"], facts["wrong_answers"]):
            assert close(mistakes / n, 1 - one.agreement(delta).mean(), n)
        assert facts["flipped"] == wrong(noisy).sum() == sum(facts["wrong_answers"])
        assert [one["beta"] for one in facts["pool"]] == [3.0, 0.5]

    def test_prompts_are_dealt_out_whole(self):
        # one annotator is always right and one nearly always at random: errors come in runs only if prompts are kept whole
        clean = lists(3000, 4)
        pool = (Annotator(), Annotator(0.49))
        shares = {}
        for by in ("pair", "prompt"):
            mistakes = wrong(annotate(clean, AnnotatorPool(pool, by=by)))
            shares[by] = (np.bincount(clean.prompt_rows, weights=mistakes) == 0).mean()
        assert shares["pair"] == pytest.approx((1 - 0.245) ** 6, abs=0.04)
        assert shares["prompt"] == pytest.approx(0.5 + 0.5 * 0.51**6, abs=0.04)

    @pytest.mark.parametrize("votes", [2, 3, 4])
    def test_votes_are_shares_and_even_ones_are_ties(self, votes):
        clean = lists(20_000, 2)
        noisy = annotate(clean, AnnotatorPool((Annotator(0.3),), votes=votes))
        p = 0.7
        against = np.array([votes - round(o * votes) for o in noisy.outcome])
        for_truth = np.where(wrong(noisy), against, votes - against)
        even = 2 * against == votes
        assert np.array_equal(noisy.ties, even)
        counts = np.bincount(for_truth[~even], minlength=votes + 1) / len(clean)
        from scipy.stats import binom

        for k, share in enumerate(counts):
            if 2 * k != votes:
                assert share == pytest.approx(binom.pmf(k, votes, p), abs=0.015)
        if even.any():
            # an even vote says nothing, and nor must the order of its two responses
            assert wrong(noisy)[even].mean() == pytest.approx(0.5, abs=0.03)
        assert noisy.responses.info[KEY]["flipped"] == wrong(noisy)[~even].sum()

    @pytest.mark.parametrize("votes", [1, 2, 5])
    def test_the_ceiling_is_what_the_true_order_scores(self, votes):
        noisy = annotate(lists(20_000, 2), AnnotatorPool((CAREFUL, CARELESS), votes=votes))
        kept = noisy[~noisy.ties]
        assert ceiling_facts(noisy)["micro"] == pytest.approx(1 - wrong(kept).mean(), abs=0.015)

    def test_texts_are_annotated_as_their_vectors_are(self):
        rows = [{"prompt": f"p{i}", "responses": ["a", "b", "c"], "gold": [0, 1, 3]} for i in range(60)]
        data = PreferenceDataset.from_records(rows)
        vectors = EmbeddedPreferences.from_arrays(
            np.zeros((180, 2)), data.pairs[["chosen", "rejected"]], prompt_of=data.responses["prompt_of"]
        )
        vectors.responses.gold = data.responses["gold"].to_numpy()
        pool = AnnotatorPool((CARELESS, Annotator(0.2, 1.0, "global-std")), by="prompt", votes=4)
        texts, drawn = annotate(data, pool, random_state=2), annotate(vectors, pool, random_state=2)
        assert np.array_equal(texts.pairs["chosen"], drawn.pairs[:, 0])
        assert np.array_equal(texts.pairs["outcome"], drawn.outcome)
        assert texts.info[KEY] == drawn.responses.info[KEY]
        assert texts.info[KEY]["pool"][1]["scale_rule"] == "global-std"
        assert known_annotator(texts.info).agreement([1.0, 2.0]) == pytest.approx(
            pool.on_scale_of(vectors.responses.gold).agreement([1.0, 2.0])
        )

    def test_the_same_seed_gives_the_same_labels(self):
        pool = AnnotatorPool((CAREFUL, CARELESS), votes=3)
        one, same, other = (annotate(lists(), pool, random_state=s) for s in (1, 1, 2))
        assert np.array_equal(one.pairs, same.pairs)
        assert not np.array_equal(one.outcome, other.outcome)

    def test_ties_stay_ties(self):
        clean = EmbeddedPreferences.from_arrays(np.eye(4), [[0, 1], [2, 3]] * 30, outcome=[1.0, 0.5] * 30)
        noisy = annotate(clean, AnnotatorPool((Annotator(0.4),), votes=3))
        assert (noisy.pairs[1::2] == [2, 3]).all()
        assert noisy.ties[1::2].all()
        assert sum(noisy.responses.info[KEY]["answers"]) == 90

    def test_cross_prompt_pairs_are_annotated(self):
        drawn = draw_pairs(lists(20_000), "cross-prompt", 20_000)
        noisy = annotate(drawn, Annotator(beta=1.0))
        # utilities of variance 1 differ by variance 2
        assert close(1 - wrong(noisy).mean(), 0.7252, len(noisy))

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"annotators": ()}, "got none"),
            ({"annotators": (1,)}, "got int"),
            ({"shares": (1,)}, "2 positive numbers"),
            ({"shares": (1, 0)}, "2 positive numbers"),
            ({"by": "pairs"}, "Did you mean 'pair'"),
            ({"votes": 0}, "votes"),
            ({"votes": True}, "votes"),
        ],
    )
    def test_impossible_pools_are_refused(self, options, message):
        with pytest.raises(InvalidInputError, match=message):
            AnnotatorPool(**{"annotators": (CAREFUL, CARELESS), **options})

    def test_what_cannot_be_annotated_is_refused(self):
        noisy = annotate(lists(), AnnotatorPool((CAREFUL,)))
        with pytest.raises(InvalidInputError, match="noisy already"):
            annotate(noisy, Annotator())
        with pytest.raises(InvalidInputError, match="got float"):
            annotate(lists(), 0.1)
