"""The names of embedrm.decoding: all there, and none of them imported before it is asked for."""

import subprocess
import sys

import pytest

import embedrm
from embedrm import decoding


def test_every_name_is_there_and_is_what_its_module_says():
    assert set(decoding.__all__) == {"PREFIX_HEADS", *decoding._LAZY}
    for name in decoding.__all__:
        found = getattr(decoding, name)
        module = decoding._LAZY.get(name)
        if module is not None and hasattr(found, "__module__") and hasattr(found, "__name__"):
            assert found.__name__ == name
            assert found.__module__.startswith(module)
    assert set(dir(decoding)) >= set(decoding.__all__)
    assert decoding.ARMHead is embedrm.ARMHead
    assert decoding.RADHead is embedrm.RADHead


def test_importing_the_package_imports_nothing_heavy():
    code = (
        "import sys, embedrm.decoding as d; "
        "print([m for m in ('torch', 'transformers', 'sklearn', 'scipy', 'pandas') if m in sys.modules]); "
        "d.best_of_n, d.redistribute, d.aggregate, d.RADHead, d.ARMHead, d.RADProcessor, d.ARMProcessor, d.generate; "
        "print([m for m in ('torch', 'transformers') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["[]", "[]"]


def test_an_unknown_name():
    with pytest.raises(AttributeError, match="has no attribute 'ARMHeads'"):
        getattr(decoding, "ARMHeads")  # noqa: B009
