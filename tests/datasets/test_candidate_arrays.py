"""Arrays of candidates: mapped and never copied, refused where that cannot be, and drawn from teachers that are known."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from embedrm import EmbeddedPreferences, Featurizer, LinearHead
from embedrm.datasets import teachers
from embedrm.datasets.candidate_arrays import load_release, map_candidates, release_paths
from embedrm.datasets.teachers import KINDS, Teacher, write_candidates
from embedrm.errors import DataError, InvalidInputError
from embedrm.heads.mlp import MLPHead
from embedrm.reporting import PeakMemory

NAME = "writer_reader_task"


@pytest.fixture
def folder(tmp_path):
    write_candidates(Teacher(6, tail=5), tmp_path, NAME, "train", 20, 4)
    return tmp_path


class TestMapping:
    def test_rows_are_the_files_own_pages(self, folder):
        vectors, rewards = release_paths(folder, NAME, "train")
        assert (vectors.name, rewards.name) == (f"embd_{NAME}_train.npy", f"reward_{NAME}_train.npy")
        mapped = np.load(vectors, mmap_mode="r")
        responses = map_candidates(mapped, rewards)
        matrix = responses.views["response:final"]
        assert np.shares_memory(matrix, mapped)
        assert not matrix.flags.writeable
        assert matrix.shape == (80, 6)
        stored = np.load(rewards)
        for i, j in ((0, 0), (7, 3), (19, 1)):
            row = i * 4 + j
            np.testing.assert_array_equal(matrix[row], mapped[i, j])
            assert responses.gold[row] == stored[i, j, 0]
            assert responses.prompt_of[row] == i

    def test_a_release_knows_its_split_and_its_name(self, folder):
        responses = load_release(folder, NAME, "train")
        assert isinstance(responses.views["response:final"], np.memmap)
        assert set(responses.split) == {"train"}
        assert responses.domains == (NAME,)
        assert responses.info["data"]["name"] == f"embd_{NAME}_train.npy"

    def test_rewards_without_the_last_axis_or_absent(self):
        x = np.arange(12, dtype=np.float32).reshape(2, 3, 2)
        r = np.arange(6.0).reshape(2, 3)
        np.testing.assert_array_equal(map_candidates(x, r).gold, map_candidates(x, r[:, :, None]).gold)
        assert np.isnan(map_candidates(x).gold).all()

    def test_missing_rewards_stay_missing(self):
        r = np.array([[1.0, np.nan]])
        assert np.isnan(map_candidates(np.ones((1, 2, 3)), r).gold).tolist() == [False, True]

    @pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
    def test_the_type_is_kept(self, dtype):
        assert map_candidates(np.ones((2, 2, 3), dtype)).views["response:final"].dtype == dtype

    def test_the_fingerprint_is_of_the_content(self, folder):
        vectors, rewards = (np.load(path) for path in release_paths(folder, NAME, "train"))

        def print_of(x, r):
            return map_candidates(x, r).info["data"]["fingerprint"]

        same = print_of(vectors, rewards)
        assert same == load_release(folder, NAME, "train").info["data"]["fingerprint"]
        other = vectors.copy()
        other[0, 0, 0] += 1
        assert (
            len({same, print_of(other, rewards), print_of(vectors, -rewards), print_of(vectors[:10], rewards[:10])})
            == 4
        )

    @pytest.mark.parametrize(
        "vectors, rewards, message",
        [
            (np.ones((4, 3), np.float32), None, r"must be an array of shape \(N, K, D\).* got \(4, 3\)"),
            ([[[1.0]]], None, r"got list"),
            (np.ones((2, 0, 3)), None, r"got \(2, 0, 3\)"),
            (np.ones((2, 3, 4), np.int64), None, "must be float32, float64 or float16, got int64"),
            (np.asfortranarray(np.ones((2, 3, 4))), None, "do not lie row by row.*ascontiguousarray"),
            (np.ones((2, 6, 4))[:, ::2], None, None),
            (np.ones((2, 7, 4))[:, :6:2], None, "do not lie row by row"),
            (
                np.ones((2, 3, 4)),
                np.ones((2, 3, 2)),
                r"shape \(2, 3, 1\) or \(2, 3\), one number a vector, got \(2, 3, 2\)",
            ),
            (np.ones((2, 3, 4)), np.ones(6), r"got \(6,\)"),
            (np.ones((1, 2, 4)), [["a", "b"]], "must be numbers"),
            (np.ones((1, 2, 4)), [[1.0, np.inf]], "1 infinite of 2"),
        ],
    )
    def test_what_cannot_be_mapped_is_refused(self, vectors, rewards, message):
        if message is None:  # rows at even steps are a matrix still
            matrix = map_candidates(vectors, rewards).views["response:final"]
            assert np.shares_memory(matrix, vectors)
            return
        with pytest.raises(InvalidInputError, match=message):
            map_candidates(vectors, rewards)

    def test_files_that_are_no_arrays_are_named(self, tmp_path):
        np.savez(tmp_path / "a.npz", x=np.ones((1, 1, 1)))
        np.save(tmp_path / "o.npy", np.array([[[None]]], dtype=object), allow_pickle=True)
        (tmp_path / "t.npy").write_text("vectors")
        for name, message in (
            ("a.npz", "members of an .npz archive cannot be mapped"),
            ("o.npy", "cannot be mapped"),
            ("t.npy", "cannot be mapped"),
            ("none.npy", "there is no such file"),
        ):
            with pytest.raises(DataError, match=rf"{name}: .*{message}"):
                map_candidates(tmp_path / name)

    def test_models_read_them_as_they_read_arrays_in_memory(self, folder):
        vectors, rewards = (np.load(path) for path in release_paths(folder, NAME, "train"))
        held = EmbeddedPreferences.from_arrays(vectors, rewards=rewards)
        mapped = EmbeddedPreferences(load_release(folder, NAME, "train"), held.pairs)
        for head in (LinearHead(), MLPHead(hidden=(4,), max_epochs=2)):
            np.testing.assert_array_equal(head.fit(held).predict(held), head.fit(mapped).predict(mapped))

    def test_fitting_copies_no_matrix(self, tmp_path, monkeypatch):
        n, k, dim = 3000, 10, 1024
        vectors, rewards = write_candidates(Teacher(dim, "linear"), tmp_path, NAME, "train", n, k, dtype="float32")
        size = vectors.stat().st_size
        # small matrices may be held; this one stands for one that may not
        monkeypatch.setattr("embedrm.featurizers.rows.HELD_LIMIT_BYTES", 2**20)
        monkeypatch.setattr("embedrm.featurizers.linear_map.GATHER_LIMIT_BYTES", 2**20)
        options = {"featurizer": Featurizer(scale="rms")}
        heads = (LinearHead(**options, tol=1e-2), MLPHead(**options, hidden=(8,), max_epochs=1))
        toy = EmbeddedPreferences.from_arrays(np.eye(6, dim, dtype=np.float32), [[0, 1], [2, 3], [4, 5]])
        for head in heads:
            head.fit(toy)
        with PeakMemory() as memory:
            responses = map_candidates(vectors, rewards)
            start = np.arange(n) * k
            pairs = np.stack([start, start + 1], axis=1)
            prefs = EmbeddedPreferences(responses, pairs)
            for head in heads:
                head.fit(prefs).predict(responses)
        if memory.above_baseline is None:
            pytest.skip("anonymous memory is known on Linux only")
        # blocks of 4,096 rows in float64 (32 MiB) are of the width, not of the number of rows
        assert memory.above_baseline < 0.6 * size


class TestTeacher:
    @pytest.mark.parametrize("kind", KINDS)
    def test_any_chunk_gives_the_same_bytes(self, kind, tmp_path):
        teacher = Teacher(7, kind, tail=3.5, random_state=5)
        written = []
        for chunk in (1, 3, 100):
            paths = write_candidates(teacher, tmp_path / str(chunk), NAME, "test", 10, 4, chunk=chunk)
            written.append([path.read_bytes() for path in paths])
        assert written[0] == written[1] == written[2]

    def test_a_prompt_is_the_same_among_however_many(self):
        teacher = Teacher(5)
        few, many = teacher.arrays("train", 3, 4), teacher.arrays("train", 9, 4)
        np.testing.assert_array_equal(few[0], many[0][:3])
        np.testing.assert_array_equal(few[1], many[1][:3])

    def test_splits_prompts_and_seeds_differ(self):
        drawn = [
            Teacher(3, random_state=seed).vectors(split, prompt, 2)
            for seed in (0, 1)
            for split in teachers.SPLITS
            for prompt in (0, 1)
        ]
        assert len({x.tobytes() for x in drawn}) == len(drawn)

    def test_rewards_are_a_function_of_the_vectors(self):
        teacher = Teacher(6, "peaked", random_state=2)
        vectors, rewards = teacher.arrays("train", 8, 5)
        assert (vectors.shape, rewards.shape) == ((8, 5, 6), (8, 5, 1))
        for i in range(8):
            np.testing.assert_array_equal(teacher.rewards(vectors[i]), rewards[i, :, 0])

    def test_the_function_by_hand(self):
        activations = {"linear": lambda x: x, "network": np.tanh, "peaked": lambda x: x * np.exp((1 - x**2) / 2)}
        for kind, g in activations.items():
            teacher = Teacher(4, kind, width=3)
            first, last = (p.astype(np.float64) for p in teacher._parameters)
            z = np.random.default_rng(0).normal(size=(50, 4))
            raw = g(z @ first) @ last
            np.testing.assert_allclose(teacher.rewards(z.astype(np.float32)), raw / teacher._scale, atol=2e-5)

    def test_a_linear_gold_is_linear_and_the_others_are_not(self):
        for kind in KINDS:
            vectors, rewards = Teacher(5, kind).arrays("train", 60, 5)
            z, r = vectors.reshape(-1, 5).astype(np.float64), rewards.reshape(-1)
            left = r - z @ np.linalg.lstsq(z, r, rcond=None)[0]
            assert (left.std() < 1e-5) == (kind == "linear"), kind

    def test_far_out_gold_rises_stays_or_vanishes(self):
        z = Teacher(8).vectors("train", 0, 6)
        far = {kind: (Teacher(8, kind).rewards(1e5 * z), Teacher(8, kind).rewards(2e5 * z)) for kind in KINDS}
        np.testing.assert_allclose(far["linear"][1], 2 * far["linear"][0], rtol=1e-5)
        np.testing.assert_allclose(far["network"][1], far["network"][0], atol=0.05)
        assert np.abs(far["network"][0]).max() > 0.5
        np.testing.assert_allclose(far["peaked"], 0.0, atol=0.05)

    @pytest.mark.parametrize("kind", KINDS)
    def test_gold_has_standard_deviation_one(self, kind):
        _, rewards = Teacher(20, kind, alike=0.0).arrays("train", 2000, 2)
        assert rewards.std() == pytest.approx(1.0, abs=0.06)

    def test_responses_to_one_prompt_are_alike(self):
        for alike in (0.0, 0.7):
            vectors, _ = Teacher(3, alike=alike).arrays("train", 4000, 2)
            a, b = vectors[:, 0, 2], vectors[:, 1, 2]
            assert np.corrcoef(a, b)[0, 1] == pytest.approx(alike, abs=0.05)

    def test_the_spectrum_and_the_tails(self):
        normal, heavy = (Teacher(4, alike=0.0, tail=tail).arrays("train", 20_000, 1)[0][:, 0] for tail in (None, 6))
        np.testing.assert_allclose(normal.var(axis=0), 1 / (1 + np.arange(4)), rtol=0.06)
        # a t of six degrees of freedom has variance 6 / 4, and kurtosis 6
        np.testing.assert_allclose(heavy.var(axis=0) * (1 + np.arange(4)), 1.5, rtol=0.1)
        x = heavy[:, 0] / heavy[:, 0].std()
        assert (np.abs(x) > 5).mean() > 20 * (np.abs(normal[:, 0]) > 5).mean()
        assert (x**4).mean() > 4.5

    def test_files_may_be_half_as_wide(self, tmp_path):
        teacher = Teacher(6)
        vectors, rewards = (
            np.load(p) for p in write_candidates(teacher, tmp_path, NAME, "test", 5, 3, dtype="float16")
        )
        whole = teacher.arrays("test", 5, 3)
        assert (vectors.dtype, rewards.dtype) == (np.float16, np.float32)
        np.testing.assert_array_equal(vectors, whole[0].astype(np.float16))
        np.testing.assert_array_equal(rewards, whole[1])

    def test_a_full_disk_is_told_before_anything_is_written(self, tmp_path, monkeypatch):
        monkeypatch.setattr(teachers.shutil, "disk_usage", lambda where: SimpleNamespace(free=1000))
        with pytest.raises(InvalidInputError, match=r"need 2,640 bytes, and 1,000 are free"):
            write_candidates(Teacher(32), tmp_path, NAME, "train", 10, 2)
        assert list(tmp_path.iterdir()) == []

    def test_an_interrupted_writer_leaves_what_was_there(self, folder):
        before = [path.read_bytes() for path in release_paths(folder, NAME, "train")]

        def stop(done, total):
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            write_candidates(Teacher(9), folder, NAME, "train", 5, 2, progress=lambda label: stop)
        assert [path.read_bytes() for path in release_paths(folder, NAME, "train")] == before
        assert len(list(folder.iterdir())) == 2

    @pytest.mark.parametrize(
        "options, message",
        [
            ({"kind": "lineer"}, "'lineer'.*linear"),
            ({"dim": 0}, "dim must be a whole number from 1, got 0"),
            ({"width": 1.5}, "width"),
            ({"alike": 1.0}, r"alike must lie in \[0, 1\)"),
            ({"tail": 2}, "tail must be a number above 2"),
            ({"random_state": -1}, "random_state"),
        ],
    )
    def test_bad_parameters(self, options, message):
        with pytest.raises(InvalidInputError, match=message):
            Teacher(**{"dim": 3, **options})

    def test_bad_requests(self, tmp_path):
        with pytest.raises(InvalidInputError, match="split of a teacher"):
            Teacher(3).vectors("trian", 0, 2)
        with pytest.raises(InvalidInputError, match="dtype of candidates"):
            write_candidates(Teacher(3), tmp_path, NAME, "train", 2, 2, dtype="float64")
        with pytest.raises(InvalidInputError, match="n_prompts must be a whole number"):
            write_candidates(Teacher(3), tmp_path, NAME, "train", 0, 2)
