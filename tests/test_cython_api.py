"""Other Cython code records on the tape, compiled against the installed package alone."""

import importlib.util
import math
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

import fastad as ad

HERE = Path(__file__).resolve().parent
SETUP = """
import sys
import fastad, numpy
from Cython.Build import cythonize
from setuptools import Extension, setup

setup(name="recorder", script_args=["build_ext", "--inplace"], ext_modules=cythonize([
    Extension("recorder", ["recorder.pyx"],
              include_dirs=[fastad.get_include(), numpy.get_include()])]))
"""


def compiler():
    command = (os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc").split()[0]
    return shutil.which(command)


@pytest.fixture(scope="module")
def recorder(tmp_path_factory):
    for package in ("Cython", "setuptools"):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed")
    if compiler() is None:
        pytest.skip("there is no C compiler")
    folder = tmp_path_factory.mktemp("recorder")
    shutil.copy(HERE / "cython_api" / "recorder.pyx", folder)
    (folder / "setup.py").write_text(SETUP)
    done = subprocess.run([sys.executable, "setup.py"], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    built = folder / ("recorder" + sysconfig.get_config_var("EXT_SUFFIX"))
    spec = importlib.util.spec_from_file_location("recorder", built)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_loop_in_cython_is_differentiated(recorder):
    x = ad.tensor(2.0, requires_grad=True)
    y = recorder.horner([1.0, 1.0, 0.0, 5.0], x)        # x**3 + x**2 + 5
    assert y.item() == 17.0
    y.backward()
    assert x.grad.item() == 16.0


def test_what_cython_recorded_is_differentiated_twice(recorder):
    x = ad.tensor(2.0, requires_grad=True)
    (first,) = ad.autograd.grad(recorder.horner([1.0, 0.0, 0.0, 0.0], x), x, create_graph=True)
    (second,) = ad.autograd.grad(first, x)
    assert (first.item(), second.item()) == (12.0, 12.0)


def test_a_primitive_takes_arrays_from_cython_too(recorder):
    x = ad.tensor([0.0, 1.0], requires_grad=True)
    recorder.through("exp", x).sum().backward()
    assert x.grad.tolist() == [1.0, math.e]


def test_a_leaf_made_in_cython_collects_its_gradient(recorder):
    assert recorder.slope_of_sine(0.5) == math.cos(0.5)


def test_cython_code_records_nothing_under_no_grad(recorder):
    x = ad.tensor(2.0, requires_grad=True)
    with ad.no_grad():
        assert not recorder.horner([1.0, 0.0], x).requires_grad


def test_an_unknown_primitive_is_an_error_and_not_a_crash(recorder):
    with pytest.raises(KeyError, match="no_such_row"):
        recorder.through("no_such_row", ad.tensor(1.0))
