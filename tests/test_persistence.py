"""Saving and loading without pickle: to the bit, or with one clear error."""

from __future__ import annotations

import copy
import json

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn.linear_model import LogisticRegression

from embedrm import Featurizer, LinearHead, LogisticRouter, RandomHead, RoutedRewardModel
from embedrm.checks import example_preferences
from embedrm.composites import COMPOSITES
from embedrm.errors import EmbedRMError, InvalidInputError, ModelError
from embedrm.persistence import dump, load_model, restore, save_model


def routed():
    return RoutedRewardModel(LinearHead(Featurizer(("r", "p*r"))), LogisticRouter(l2=0.01), routing="hard")


def same_value(a, b):
    assert type(a) is type(b)
    if isinstance(a, np.ndarray):
        assert a.dtype == b.dtype
        assert a.shape == b.shape
        assert a.tobytes() == b.tobytes()
    elif isinstance(a, (list, tuple)):
        assert len(a) == len(b)
        for x, y in zip(a, b):
            same_value(x, y)
    elif isinstance(a, dict):
        assert a.keys() == b.keys()
        for key in a:
            same_value(a[key], b[key])
    elif isinstance(a, float):
        assert np.float64(a).tobytes() == np.float64(b).tobytes() or (np.isnan(a) and np.isnan(b))
    else:
        assert a == b


dtypes = st.sampled_from([np.float64, np.float32, np.float16, np.int64, np.uint8, np.bool_])
arrays = hnp.arrays(dtypes, hnp.array_shapes(min_dims=0, min_side=0))
plain = st.one_of(st.none(), st.booleans(), st.integers(-(2**60), 2**60), st.floats(), st.text(max_size=8), arrays)
# names that look like the format's own marks, and names with dots, which could make two paths alike
keys = st.one_of(st.text(max_size=4), st.sampled_from(["#array", "#map", "#model", "a.b", "a", "b", "0", "#float"]))
values = st.recursive(
    plain,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.lists(inner, max_size=3).map(tuple), st.dictionaries(keys, inner, max_size=3)
    ),
    max_leaves=8,
)


@settings(max_examples=150)
@given(values)
def test_every_value_comes_back_as_it_was(value):
    stored = {}
    state = json.loads(json.dumps(dump(value, "x", stored), allow_nan=False))
    same_value(restore(state, stored), value)


def test_paths_that_look_alike_keep_their_arrays_apart():
    value = {"a.b": np.array([1.0]), "a": {"b": np.array([2.0])}}
    stored = {}
    same_value(restore(dump(value, "x", stored), stored), value)


@pytest.mark.parametrize(
    "value, back", [(np.int32(3), 3), (np.float32(0.5), 0.5), (np.bool_(True), True), (np.str_("é"), "é")]
)
def test_numpy_numbers_come_back_as_plain_ones(value, back):
    same_value(restore(json.loads(json.dumps(dump(value, "x", {}))), {}), back)


def test_strings_in_arrays_come_back():
    names = np.array(["beta", "é", ""])
    np.testing.assert_array_equal(restore(dump(names, "x", {}), {}), names)


@pytest.mark.parametrize(
    "value, message",
    [
        (object(), "a object has no safe format"),
        (np.array([object()]), "arrays of object have no safe format"),
        (np.array([1j]), "arrays of complex128 have no safe format"),
        ({1: 2}, "mappings must have string keys"),
        (lambda x: x, "a function has no safe format"),
        (LogisticRegression(), "LogisticRegression is not registered"),
    ],
)
def test_what_has_no_safe_format_is_refused_by_its_path(value, message):
    with pytest.raises(InvalidInputError, match=rf"^cannot save model\.x\.1: .*{message}"):
        dump([0, value], "model.x", {})


def test_a_parameter_without_safe_format_is_refused_and_leaves_no_file(tmp_path):
    with pytest.raises(InvalidInputError, match=r"cannot save model\.expert: LogisticRegression is not registered"):
        save_model(RoutedRewardModel(expert=LogisticRegression()), tmp_path / "m")
    assert list(tmp_path.iterdir()) == []


def test_a_nested_model_keeps_every_bit(tmp_path):
    prefs, _ = example_preferences()
    model = routed().fit(prefs)
    loaded, extra = load_model(save_model(model, tmp_path / "deep" / "down" / "m", extra={"note": [1, "é"]}))
    assert extra == {"note": [1, "é"]}
    np.testing.assert_array_equal(loaded.predict(prefs), model.predict(prefs))
    assert sorted(p.name for p in (tmp_path / "deep" / "down" / "m").iterdir()) == ["arrays.safetensors", "model.json"]
    for a, b in zip(loaded.experts_, model.experts_):
        same_value(a.coef_, b.coef_)
        same_value(a.featurizer_.centre_, b.featurizer_.centre_)
        same_value(a.cv_results_, b.cv_results_)


def test_a_model_without_arrays_is_saved(tmp_path):
    prefs, _ = example_preferences()
    model = RandomHead(7).fit(prefs)
    loaded, _ = load_model(save_model(model, tmp_path / "m"))
    np.testing.assert_array_equal(loaded.predict(prefs), model.predict(prefs))


def test_a_result_of_grid_search_is_saved(tmp_path):
    # its parameters are NumPy's own booleans, numbers and strings
    model = RoutedRewardModel(
        LinearHead(l2=np.float64(0.1), cv=np.int64(3)), calibrate=np.bool_(True), routing=np.str_("hard")
    )
    loaded, _ = load_model(save_model(model, tmp_path / "m"))
    assert loaded.get_params()["expert__l2"] == 0.1
    assert loaded.calibrate is True
    assert loaded.routing == "hard"


class TestFolder:
    def test_an_existing_folder_is_kept_unless_asked(self, tmp_path):
        folder = save_model(LinearHead(l2=1.0), tmp_path / "m")
        with pytest.raises(ModelError, match=r"m exists already; .* or ask to overwrite it\. Nothing was written"):
            save_model(LinearHead(l2=2.0), folder)
        assert load_model(folder)[0].l2 == 1.0
        save_model(LinearHead(l2=2.0), folder, overwrite=True)
        assert load_model(folder)[0].l2 == 2.0
        assert [p.name for p in tmp_path.iterdir()] == ["m"]

    def test_a_folder_of_something_else_is_never_replaced(self, tmp_path):
        (tmp_path / "thesis").mkdir()
        (tmp_path / "thesis" / "chapter.txt").write_text("years of work")
        for overwrite in (True, False):
            with pytest.raises(ModelError, match="exists already"):
                save_model(LinearHead(), tmp_path / "thesis", overwrite=overwrite)
        assert (tmp_path / "thesis" / "chapter.txt").read_text() == "years of work"


ODDITIES = [None, 1, "x", [], {}, {"#map": 3}, {"#tuple": 1}, {"#array": []}, {"#strings": {}}, {"#model": "head"}]


class TestDamage:
    @pytest.fixture
    def folder(self, tmp_path):
        return save_model(routed().fit(example_preferences()[0]), tmp_path / "m")

    @pytest.mark.parametrize("name", ["model.json", "arrays.safetensors"])
    def test_a_missing_file_is_named(self, folder, name):
        (folder / name).unlink()
        with pytest.raises(ModelError, match=rf"holds no saved model \({name} is missing\)"):
            load_model(folder)

    def test_no_folder(self, tmp_path):
        with pytest.raises(ModelError, match="holds no saved model"):
            load_model(tmp_path / "nowhere")

    @pytest.mark.parametrize("name", ["model.json", "arrays.safetensors"])
    @pytest.mark.parametrize("keep", [0, 0.5])
    def test_a_truncated_file_is_a_damaged_model(self, folder, name, keep):
        data = (folder / name).read_bytes()
        (folder / name).write_bytes(data[: int(keep * len(data))])
        with pytest.raises(ModelError, match="holds a damaged model"):
            load_model(folder)

    def test_bytes_that_are_no_text_are_a_damaged_model(self, folder):
        (folder / "model.json").write_bytes(b"\xff\xfe{")
        with pytest.raises(ModelError, match="holds a damaged model"):
            load_model(folder)

    @pytest.mark.parametrize(
        "change, message",
        [
            (lambda s: s.update(format=99), "expected format 1, got 99"),
            (lambda s: s.pop("format"), "expected format 1, got None"),
            (lambda s: s.pop("model"), "does not describe a model"),
            (lambda s: s.pop("extra"), "does not describe a model"),
            (lambda s: s["model"].update(name="linaer"), "unknown composite model 'linaer'"),
            (lambda s: s["model"].update({"#model": "encoder"}), "unknown kind of model 'encoder'.* newer embedrm"),
            (lambda s: s["model"]["params"].update(colour=1), "does not describe a model"),
            (lambda s: s["model"].update(fitted=[]), "does not describe a model"),
            (lambda s: s["model"]["fitted"].update(scale_={"#array": "gone"}), "does not describe a model"),
            (lambda s: s["model"]["fitted"].update(scale_={"#float": "x"}), "does not describe a model"),
            (lambda s: s["model"]["fitted"].update(__class__="x"), "a saved routed cannot set '__class__'"),
            (lambda s: s["model"]["fitted"].update(predict=1), "a saved routed cannot set 'predict'"),
        ],
    )
    def test_a_description_that_is_wrong_is_one_clear_error(self, folder, change, message):
        state = json.loads((folder / "model.json").read_text())
        change(state)
        (folder / "model.json").write_text(json.dumps(state))
        with pytest.raises(EmbedRMError, match=message):
            load_model(folder)

    @pytest.mark.parametrize("text", ["[]", "3", "null", '"x"'])
    def test_json_that_is_no_model(self, folder, text):
        (folder / "model.json").write_text(text)
        with pytest.raises(ModelError, match="expected format 1, got None"):
            load_model(folder)

    @settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(data=st.data())
    def test_any_edit_loads_or_is_an_error_of_ours(self, folder, data):
        text = (folder / "model.json").read_text()
        state = json.loads(text)
        places = []

        def walk(node, path):
            items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
            for key, value in items:
                places.append((*path, key))
                walk(value, (*path, key))

        walk(state, ())
        edited = copy.deepcopy(state)
        *path, last = data.draw(st.sampled_from(places))
        node = edited
        for key in path:
            node = node[key]
        node[last] = data.draw(st.sampled_from(ODDITIES))
        (folder / "model.json").write_text(json.dumps(edited))
        try:
            load_model(folder)
        except EmbedRMError:
            pass
        finally:
            (folder / "model.json").write_text(text)


def test_no_class_outside_the_registries_can_be_named(tmp_path):
    folder = save_model(LinearHead(), tmp_path / "m")
    state = json.loads((folder / "model.json").read_text())
    for kind, name in (
        ("head", "os.system"),
        ("head", "sklearn.linear_model.LogisticRegression"),
        ("builtins", "eval"),
    ):
        state["model"].update({"#model": kind, "name": name})
        (folder / "model.json").write_text(json.dumps(state))
        with pytest.raises(EmbedRMError, match="unknown"):
            load_model(folder)


def test_a_user_class_is_saved_once_registered(tmp_path, monkeypatch):
    class Mine(LinearHead):
        pass

    with pytest.raises(InvalidInputError, match="Mine is not registered, so a file could not name it safely"):
        save_model(Mine(), tmp_path / "m")
    COMPOSITES.discover()
    monkeypatch.setitem(COMPOSITES._classes, "mine", Mine)
    loaded, _ = load_model(save_model(Mine(l2=0.3), tmp_path / "m"))
    assert type(loaded) is Mine
    assert loaded.l2 == 0.3
