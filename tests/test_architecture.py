"""Imports go one way, heavy packages load late, and nothing unsafe is used: read from the source, not from a run."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import embedrm

ROOT = Path(embedrm.__file__).parent

# Each unit may import the units to its left, inside functions too. Datasets and encoders do not know each other.
ORDER = (
    *("errors", "registry", "progress", "views", "numerics", "preferences", "featurizers", "objectives"),
    *("datasets", "encoders", "store", "encoding", "annotation", "tuning", "language_models"),
    *("reward_model", "heads", "routers", "composites", "active", "merging", "decoding", "evaluation"),
    *("reporting", "parameters", "persistence", "pipeline", "checks", "experiments", "cli"),
)
STRANGERS = [("encoders", "datasets"), ("store", "datasets"), ("datasets", "encoders"), ("datasets", "store")]
# The package itself exports every unit, and only lazily.
LAZY = {"__init__", "__main__"}

HEAVY = {"torch", "sentence_transformers", "transformers", "lightgbm", "IPython"}
UNSAFE = {"pickle", "cPickle", "cloudpickle", "dill", "shelve", "marshal", "skops"}
# Where one of them is right, and why.
SAFEGUARDED = {"embedrm.routers._skops": "its files are checked before they are read: types of scikit-learn alone"}
# Names of numpy.random that carry a state of their own.
SEEDED = {"default_rng", "Generator", "SeedSequence", "BitGenerator", "PCG64", "Philox"}
# Where a generator without a seed is right, and why.
UNSEEDED = {"embedrm.store.fill": "writers that share a store must draw differently"}


def modules() -> dict[str, ast.Module]:
    found = {}
    for path in sorted(ROOT.rglob("*.py")):
        name = ".".join(("embedrm", *path.relative_to(ROOT).with_suffix("").parts))
        found[name.removesuffix(".__init__")] = ast.parse(path.read_text(encoding="utf-8"), str(path))
    return found


MODULES = modules()


def unit(module: str) -> str:
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else "__init__"


def imports(tree: ast.AST):
    """Every imported module of a tree, with the line: ``from a import b`` gives a and a.b."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield ("." * node.level + (node.module or ""), node.lineno)
            if node.level == 0:
                yield from ((f"{node.module}.{alias.name}", node.lineno) for alias in node.names)


def at_import(tree: ast.Module):
    """Statements that run when the module is imported: not functions' bodies, not ``if TYPE_CHECKING``."""
    stack = list(tree.body)
    while stack:
        node = stack.pop()
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            continue
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            stack += node.orelse
            continue
        yield node
        stack += [child for child in ast.iter_child_nodes(node) if isinstance(child, (ast.stmt, ast.ExceptHandler))]


def under_type_checking(tree: ast.Module) -> set[int]:
    """Lines of imports that only a type checker reads."""
    return {
        inner.lineno
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
        for statement in node.body
        for inner in ast.walk(statement)
        if isinstance(inner, (ast.Import, ast.ImportFrom))
    }


def dotted(node: ast.AST) -> str:
    """``np.random.seed`` of an attribute chain, empty for anything else."""
    names = []
    while isinstance(node, ast.Attribute):
        names.append(node.attr)
        node = node.value
    return ".".join([node.id, *reversed(names)]) if isinstance(node, ast.Name) else ""


def test_every_unit_has_a_place_in_the_order():
    units = {unit(name) for name in MODULES} - LAZY
    assert units <= set(ORDER), f"give {sorted(units - set(ORDER))} a place in ORDER, and in CONTRIBUTING.md"


@pytest.mark.parametrize("name", sorted(MODULES))
def test_imports_go_one_way(name):
    here = unit(name)
    if here in LAZY:
        return
    tree = MODULES[name]
    types_only = under_type_checking(tree)
    wrong = []
    for target, line in imports(tree):
        assert not target.startswith("."), f"{name}:{line}: relative import; write the full name"
        there = unit(target)
        if target.partition(".")[0] != "embedrm" or there in (here, "__init__", "__version__"):
            continue
        if there not in ORDER:
            # a lazily exported name, such as `from embedrm import encode`, hides what is imported
            wrong.append(f"{name}:{line} imports {target} through the package; import it from its module")
        elif (here, there) in STRANGERS and line not in types_only:
            wrong.append(f"{name}:{line}: {here} must not know {there}")
        elif ORDER.index(there) > ORDER.index(here) and line not in types_only:
            wrong.append(f"{name}:{line}: {here} imports {there}, which comes after it")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("name", sorted(MODULES))
def test_heavy_packages_are_imported_inside_functions(name):
    wrong = [
        f"{name}:{line} imports {target} at import time"
        for node in at_import(MODULES[name])
        if isinstance(node, (ast.Import, ast.ImportFrom))
        for target, line in imports(node)
        if target.partition(".")[0] in HEAVY
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("name", sorted(MODULES))
def test_nothing_unsafe_and_no_global_randomness(name):
    tree = MODULES[name]
    unsafe = UNSAFE - {"skops"} if name in SAFEGUARDED else UNSAFE
    wrong = [f"{name}:{line} imports {m}" for m, line in imports(tree) if m.partition(".")[0] in unsafe]
    # the class random.Random holds its own seed; everything else in that module is one state for the whole process
    own_seed = {line for m, line in imports(tree) if m == "random.Random"}
    wrong += [
        f"{name}:{line} imports {m}"
        for m, line in imports(tree)
        if m.partition(".")[0] == "random" and (line not in own_seed or m not in ("random", "random.Random"))
    ]
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            chain = dotted(node)
            for prefix in ("np.random.", "numpy.random."):
                if chain.startswith(prefix) and chain.removeprefix(prefix).partition(".")[0] not in SEEDED:
                    wrong.append(f"{name}:{node.lineno} uses the global generator: {chain}")
            if chain in ("joblib.load", "joblib.dump", "torch.load", "torch.manual_seed", "torch.save"):
                wrong.append(f"{name}:{node.lineno} uses {chain}")
        if isinstance(node, ast.Call):
            bare = not node.args and not node.keywords
            if dotted(node.func).endswith(".default_rng") and bare and name not in UNSEEDED:
                wrong.append(f"{name}:{node.lineno} makes a generator without a seed")
            if dotted(node.func) in ("np.load", "numpy.load") and any(
                k.arg == "allow_pickle" and not (isinstance(k.value, ast.Constant) and k.value.value is False)
                for k in node.keywords
            ):
                wrong.append(f"{name}:{node.lineno} lets numpy.load unpickle")
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load) and node.id in ("eval", "exec"):
            wrong.append(f"{name}:{node.lineno} uses {node.id}")
        if isinstance(node, ast.ExceptHandler) and node.type is None:
            wrong.append(f"{name}:{node.lineno} is a bare except")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("name", sorted(MODULES))
def test_files_are_short_and_begin_with_what_they_are_for(name):
    tree = MODULES[name]
    if unit(name) != "__init__" or tree.body:
        assert ast.get_docstring(tree), f"{name} has no docstring"
    lines = max((getattr(node, "end_lineno", 0) or 0 for node in tree.body), default=0)
    # The comparison graph, which everything reads, is the one long file; lists of phrases are no code.
    lists = name.startswith("embedrm.datasets.domains.phrases")
    limit = 500 if name == "embedrm.preferences" else 800 if lists else 400
    assert lines < limit, f"{name} has {lines} lines: one idea per file"


def test_the_package_imports_nothing_heavy_and_names_what_it_exports():
    code = (
        "import sys, embedrm; "
        "loaded = [m for m in ('torch', 'pandas', 'sklearn', 'scipy', 'transformers', 'numpy') if m in sys.modules]; "
        "assert not loaded, loaded; "
        "own = sorted(m for m in sys.modules if m.startswith('embedrm.')); assert not own, own; "
        "assert set(embedrm.__all__) <= set(dir(embedrm))"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    "code, kept_out",
    [
        (
            "import numpy as np; from embedrm import EmbeddedPreferences, LinearHead; "
            "p = EmbeddedPreferences.from_arrays(np.eye(4), [[0, 1], [2, 3]]); LinearHead().fit(p).predict(p); "
            "import embedrm.persistence, embedrm.composites.routed",
            HEAVY | {"matplotlib"},
        ),
        ("import embedrm.reporting", HEAVY | {"matplotlib"}),
        ("import embedrm.datasets, embedrm.encoders, embedrm.store", HEAVY | {"matplotlib"}),
    ],
    ids=["scoring vectors", "reporting", "reading data"],
)
def test_what_does_not_need_a_heavy_package_does_not_load_it(code, kept_out):
    check = f"{code}; import sys; loaded = {sorted(kept_out)!r}; loaded = [m for m in loaded if m in sys.modules]; "
    subprocess.run([sys.executable, "-c", check + "assert not loaded, loaded"], check=True)


def test_every_exported_name_exists():
    for name in embedrm.__all__:
        assert getattr(embedrm, name) is not None


def test_an_unknown_name_of_the_package_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'embedrm' has no attribute 'RewardModle'"):
        embedrm.RewardModle  # noqa: B018


class TestTheTestItself:
    """The rules catch what they are for."""

    @pytest.mark.parametrize(
        "code, here",
        [
            ("from embedrm.heads.linear import LinearHead", "embedrm.numerics.x"),
            ("def f():\n    from embedrm import heads", "embedrm.featurizers.x"),
            ("import embedrm.cli", "embedrm.reporting.x"),
            ("from embedrm.store import EmbeddingStore", "embedrm.datasets.x"),
            ("from embedrm import LinearHead", "embedrm.cli.x"),
        ],
    )
    def test_a_wrong_import_is_found(self, code, here, monkeypatch):
        monkeypatch.setitem(MODULES, here, ast.parse(code))
        with pytest.raises(AssertionError, match=r"x:\d"):
            test_imports_go_one_way(here)

    @pytest.mark.parametrize(
        "code",
        [
            "import pickle",
            "def f():\n    import pickle",
            "import random",
            "from random import Random, shuffle",
            "import numpy as np\nnp.random.seed(0)",
            "import numpy as np\nx = np.random.normal(size=3)",
            "import numpy as np\nrng = np.random.default_rng()",
            "np.load('x', allow_pickle=True)",
            "import joblib\njoblib.load('x')",
            "try:\n    pass\nexcept:\n    pass",
            "eval('1')",
        ],
    )
    def test_what_is_unsafe_is_found(self, code, monkeypatch):
        monkeypatch.setitem(MODULES, "embedrm.heads.x", ast.parse(code))
        with pytest.raises(AssertionError, match=r"embedrm\.heads\.x:"):
            test_nothing_unsafe_and_no_global_randomness("embedrm.heads.x")

    def test_what_is_safe_passes(self, monkeypatch):
        code = (
            "import numpy as np\nfrom random import Random\nrng = np.random.default_rng(0)\n"
            "g: np.random.Generator = rng\nnp.load('x', allow_pickle=False)\nRandom(3)"
        )
        monkeypatch.setitem(MODULES, "embedrm.heads.x", ast.parse(code))
        test_nothing_unsafe_and_no_global_randomness("embedrm.heads.x")

    @pytest.mark.parametrize(
        "code, found",
        [
            ("import torch", True),
            ("class A:\n    import torch", True),
            ("try:\n    import torch.nn\nexcept ImportError:\n    pass", True),
            ("def f():\n    import torch", False),
            ("from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import torch", False),
        ],
    )
    def test_early_heavy_imports_are_found(self, code, found, monkeypatch):
        monkeypatch.setitem(MODULES, "embedrm.heads.x", ast.parse(code))
        if found:
            with pytest.raises(AssertionError, match="imports torch"):
                test_heavy_packages_are_imported_inside_functions("embedrm.heads.x")
        else:
            test_heavy_packages_are_imported_inside_functions("embedrm.heads.x")
