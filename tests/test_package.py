"""The package as it is installed: files, imports, stubs, and what the README and docstrings say."""

import ast
import doctest
import importlib.metadata
import importlib.util
import json
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

import fastad as ad
from fastad import _core

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = Path(ad.__file__).resolve().parent
FLOORS = [
    "_core", "rules", "assignment", "complex_rules", "special_values", "special", "exchange",
    "statements", "numpy_api", "linalg_rules", "linalg_scipy", "linalg", "definitions",
    "numpy_statistics", "numpy_signal", "numpy_arrangement", "numpy_polynomials", "numpy_ufuncs",
    "numpy_scimath", "numpy_creation", "numpy_methods", "numpy_coverage", "adapt", "storage", "fft",
    "modes", "progress", "autograd", "transforms", "native", "rows", "watching", "arguments",
    "recording", "program", "tables", "blame", "graph", "summary", "sympy", "trust", "formulas",
    "labels", "folding", "layout", "canvas", "pictures", "scipy", "__init__",
]
SHIPPED = [
    "py.typed", "__init__.pyi", "_core.pyi", "special.pyi", "_core.pxd", "cfad.pxd", "record.h",
    "tensor_object.h",
    "core/fad.h", "core/kernels.h", "core/special.h", "core/ops.def",
]


def load(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def helper():
    """Import a script of .ci, or skip where it is not part of what is tested."""
    def find(name):
        path = ROOT / ".ci" / f"{name}.py"
        if not path.exists():
            pytest.skip(f"{path.name} is not here")
        return load(path)
    return find


# ---- files ---------------------------------------------------------------------------------------


def test_the_version_is_that_of_the_installed_distribution():
    assert ad.__version__ == importlib.metadata.version("fastad")


@pytest.mark.parametrize("name", SHIPPED)
def test_the_installed_package_holds_what_others_compile_and_check_against(name):
    assert (PACKAGE / name).is_file()


def test_get_include_names_the_folder_of_the_headers():
    assert Path(ad.get_include(), "fad.h").is_file()


def test_the_licence_is_an_spdx_expression_and_numpy_the_only_requirement():
    about = importlib.metadata.metadata("fastad")
    assert about["License-Expression"] == "MIT"
    needed = [r for r in about.get_all("Requires-Dist") if "extra ==" not in r]
    assert needed == ["numpy>=2.0"]
    assert {"test", "bench", "peers", "examples"} <= set(about.get_all("Provides-Extra"))
    for requirement in about.get_all("Requires-Dist"):
        assert "<" not in requirement and "==" not in requirement.split(";")[0]


@pytest.mark.skipif("FASTAD_WHEEL" not in os.environ, reason="FASTAD_WHEEL names no wheel")
def test_the_wheel_is_small_and_holds_no_sources():
    wheel = Path(os.environ["FASTAD_WHEEL"])
    assert wheel.stat().st_size < 3e6
    names = zipfile.ZipFile(wheel).namelist()
    assert {f"fastad/{name}" for name in SHIPPED} <= set(names)
    assert not [name for name in names if name.endswith((".c", ".pyx", ".pyc"))]
    folders = {name.split("/")[0] for name in names}
    assert folders == {"fastad", f"fastad-{ad.__version__}.dist-info"}


# ---- imports -------------------------------------------------------------------------------------


def imported(source, module):
    """Names of fastad's modules that a module imports, at its top or inside functions."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {a.name.split(".")[1] if "." in a.name else "__init__" for a in node.names
                      if a.name.split(".")[0] == "fastad"}
        elif isinstance(node, ast.ImportFrom):
            parts = (node.module or "").split(".")
            if node.level == 0 and parts[0] != "fastad":
                continue
            inside = parts[1:] if node.level == 0 else [part for part in parts if part]
            if inside:
                found.add(inside[0])
            else:
                found |= {a.name if a.name in FLOORS else "__init__" for a in node.names}
    return found - {module}


def upward_imports(sources):
    """Sentences about imports that do not go down, for a dict of module names and sources."""
    return [
        f"{module} imports {target}"
        for module, source in sources.items()
        for target in sorted(imported(source, module))
        if FLOORS.index(target) >= FLOORS.index(module)
    ]


def test_imports_go_down_only():
    sources = {path.stem: path.read_text() for path in PACKAGE.glob("*.py")}
    assert set(sources) == set(FLOORS) - {"_core"}
    assert upward_imports(sources) == []


@pytest.mark.parametrize("line", [
    "from . import transforms", "from .transforms import grad", "from . import grad",
    "import fastad", "import fastad.modes", "from fastad import autograd",
    "from fastad.transforms import jvp",
    "def f():\n    from . import linalg", "if TYPE_CHECKING:\n    from .modes import no_grad",
])
def test_an_upward_import_is_found(line):
    assert upward_imports({"rules": f"import numpy\nfrom . import _core\n{line}\n"})


def test_the_compiled_floors_import_nothing_from_above():
    source = ROOT / "src" / "fastad"
    if not source.is_dir():
        pytest.skip("the sources are not here")
    lines = (source / "_core.pyx").read_text().splitlines()
    assert [line for line in lines if re.match(r"\s*(from|import)\s+(fastad|\.)", line)] == [
        "from fastad.cfad cimport *"]
    for path in (source / "core").iterdir():
        assert "Python.h" not in path.read_text()


def run_python(code):
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_import_brings_in_numpy_and_nothing_else():
    new = json.loads(run_python(
        "import json, sys, numpy\n"
        "before = set(sys.modules)\n"
        "import fastad\n"
        "print(json.dumps(sorted(set(sys.modules) - before)))"))
    tops = {name.split(".")[0] for name in new}
    assert "fastad" in tops
    # Cython registers the types that its modules share
    foreign = {t for t in tops if t not in sys.stdlib_module_names and not t.startswith("_cython_")}
    assert foreign - {"cython_runtime"} <= {"fastad", "numpy"}


def test_the_import_leaves_numpys_settings_alone():
    assert run_python(
        "import warnings, numpy\n"
        "before = numpy.geterr(), numpy.get_printoptions(), len(warnings.filters)\n"
        "import fastad\n"
        "print(before == (numpy.geterr(), numpy.get_printoptions(), len(warnings.filters)))"
    ) == "True\n"


# ---- stubs ---------------------------------------------------------------------------------------


def declared(path):
    """Top-level names of a stub, and the names in its classes."""
    tree = ast.parse(path.read_text())
    names, classes = set(), {}
    for node in tree.body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            names.add(node.name)
        elif isinstance(node, ast.AnnAssign):
            names.add(node.target.id)
        elif isinstance(node, ast.ImportFrom):
            names |= {a.asname for a in node.names if a.asname}
        if isinstance(node, ast.ClassDef):
            classes[node.name] = {n.name for n in node.body if isinstance(n, ast.FunctionDef)} | {
                n.target.id for n in node.body if isinstance(n, ast.AnnAssign)}
    return names, classes


def test_the_stub_of_the_package_declares_every_public_name():
    names, _ = declared(PACKAGE / "__init__.pyi")
    assert set(ad.__all__) <= names
    assert names - set(ad.__all__) <= {"__version__", "__all__", "_Axis", "_Shape", "_Out", "_bool"}


def test_the_stub_of_the_package_is_what_its_script_writes(helper):
    stubs = helper("stubs")
    assert stubs.stub() == (PACKAGE / "__init__.pyi").read_text(), (
        "run: python .ci/stubs.py --write")


def test_there_is_one_elementwise_stub_for_each_row_of_the_table():
    text = (PACKAGE / "__init__.pyi").read_text()
    section = text.split("# Elementwise functions")[1].split("\n# ")[0]
    found = re.findall(r"^def (\w+)\(", section, re.MULTILINE)
    # clip and where take what NumPy's take, and stand among the functions of arrays
    assert sorted([*found, "clip", "where"]) == sorted(row["name"] for row in _core.table())


def test_the_stub_of_tensor_declares_its_methods_and_no_others():
    _, classes = declared(PACKAGE / "_core.pyi")
    inherited = set(dir(object)) | {"__buffer__", "__getstate__", "__setitem__", "__delitem__"}
    assert set(dir(ad.Tensor)) - classes["Tensor"] <= inherited
    assert classes["Tensor"] <= set(dir(ad.Tensor))


def test_the_typed_sample_runs(capsys):
    load(ROOT / "tests" / "typing_sample.py").main()
    assert capsys.readouterr().out.startswith("[2. 4.] (3, 2)")


# ---- what is written -----------------------------------------------------------------------------


def documented():
    modules = [importlib.import_module(f"fastad.{name}") for name in FLOORS[1:-1]]
    return [pytest.param(module, id=module.__name__) for module in [ad, *modules]]


@pytest.mark.parametrize("module", documented())
def test_the_examples_in_docstrings_hold(module):
    # not in the module's own names, where round() and sum() are fastad's
    done = doctest.testmod(module, globs={})
    assert done.failed == 0
    assert done.attempted > 0 or module.__name__ in {
        "fastad.rules", "fastad.complex_rules", "fastad.special_values", "fastad.storage",
        "fastad.native", "fastad.rows", "fastad.definitions", "fastad.statements",
        "fastad.numpy_methods",
        "fastad.linalg_rules", "fastad.watching", "fastad.arguments", "fastad.recording"}


def compiled_examples():
    things = {"tensor": ad.tensor, "Tensor": ad.Tensor, "name": ad.name}
    things |= {f"Tensor.{name}": getattr(ad.Tensor, name) for name in dir(ad.Tensor)
               if not name.startswith("__")}
    return {name: thing.__doc__ for name, thing in things.items() if ">>>" in (thing.__doc__ or "")}


@pytest.mark.parametrize("name", compiled_examples())
def test_the_examples_in_compiled_docstrings_hold(name):
    run_examples(compiled_examples()[name], name, {})


def run_examples(text, name, names):
    test = doctest.DocTestParser().get_doctest(text, names, name, None, 0)
    runner = doctest.DocTestRunner(verbose=False)
    report = []
    runner.run(test, out=report.append, clear_globs=False)
    assert runner.failures == 0, "".join(report)
    names.update(test.globs)


def readme(name="README.md"):
    path = ROOT / name
    if not path.exists():
        pytest.skip(f"{name} is not here")
    return path.read_text()


def blocks(language, name="README.md"):
    return re.findall(rf"^```{language}\n(.*?)^```$", readme(name), re.MULTILINE | re.DOTALL)


DOCUMENTS = ["README.md", *sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))]


@pytest.mark.parametrize("name", DOCUMENTS)
def test_the_examples_in_the_documents_hold(name):
    pytest.importorskip("scipy")
    names = {}
    for number, block in enumerate(blocks("python", name)):
        assert block.startswith(">>>")
        run_examples(block, f"{name} block {number}", names)


def test_the_pages_that_explain_show_examples():
    for name in {"README.md", "docs/programs.md", "docs/interop.md"} & set(DOCUMENTS):
        assert blocks("python", name)


def test_the_cython_code_in_the_readme_is_what_is_tested():
    tested = (ROOT / "tests" / "cython_api" / "recorder.pyx").read_text()
    (block,) = blocks("cython")
    for part in block.strip().split("\n\n\n"):
        assert part in tested


def test_the_row_in_the_readme_is_in_the_table():
    row = re.search(r"^    FAD_UNARY\((\w+), (.*?), (.*?), FAD_X, \"(\w+)\", (\S+), (\S+)\)$",
                    readme(), re.MULTILINE).groups()
    (found,) = [r for r in _core.table() if r["name"] == row[0]]
    assert (found["primal"], found["partials"], found["numpy"]) == (row[1], (row[2],), row[3])
    assert found["intervals"] == ((float(row[4]), float(row[5])),)


def test_the_readme_has_the_two_commands():
    shell = "".join(blocks("sh"))
    assert shell.count("&& .venv/bin/python examples/nist_fits.py\n") == 1
    assert shell.count("&& .venv/bin/python -m pytest\n") == 1


# ---- the worked cases ----------------------------------------------------------------------------


@pytest.mark.parametrize("at", [-2.0, 0.0, 0.5, 3.0])
def test_two_paths_add_up(at):
    x = ad.tensor(at, requires_grad=True)
    (x**3 + x**2).backward()
    assert x.grad.item() == 3.0 * at**2 + 2.0 * at


@pytest.mark.parametrize("at", [-3.0, 0.25, 2.0])
def test_a_quotient_is_differentiated(at):
    x = ad.tensor(at, requires_grad=True)
    (ad.sin(x) / x).backward()
    assert x.grad.item() == pytest.approx(np.cos(at) / at - np.sin(at) / at**2, rel=1e-14)


def test_twice_a_dot_product_has_the_gradient_four_x():
    x = ad.arange(4, dtype=ad.float32)
    x.requires_grad_(True)
    y = 2 * ad.dot(x, x)
    assert repr(y).startswith("tensor(28., grad_fn=")
    y.backward()
    assert x.grad.tolist() == [0.0, 4.0, 8.0, 12.0]
    assert bool((x.grad == 4 * x).all())


# ---- the scripts of .ci --------------------------------------------------------------------------

ERROR = """<valgrindoutput><error><kind>{kind}</kind>
<xwhat><text>8 bytes are lost</text></xwhat><stack>
<frame><obj>/usr/lib/valgrind/vgpreload.so</obj><fn>malloc</fn></frame>
<frame><obj>{obj}</obj><fn>fad_malloc</fn></frame></stack></error></valgrindoutput>"""


@pytest.mark.parametrize(("kind", "obj", "count"), [
    ("Leak_DefinitelyLost", "/x/site-packages/fastad/_core.so", 1),
    ("InvalidRead", "/x/site-packages/fastad/_core.so", 1),
    ("Leak_StillReachable", "/x/site-packages/fastad/_core.so", 0),
    ("Leak_DefinitelyLost", "/usr/bin/python3", 0),
])
def test_valgrinds_findings_count_where_they_are_ours(helper, kind, obj, count):
    assert len(helper("valgrind").findings(ERROR.format(kind=kind, obj=obj))) == count


def test_the_table_of_benches_shows_how_many_times_longer_a_rival_takes(helper):
    script = helper("bench_table")
    measured = {
        "environment": {"processor": "P", "cpus": 2, "time": "2025-01-02T", "versions": {"a": "1"}},
        "ratios": [{"case": "c", "rival": "NumPy", "ratio": 0.5, "fastad_seconds": [1, 2e-6, 3]}],
        "figures": [{"figure": "bytes", "value": 26.0}],
    }
    table = script.table(measured)
    assert "| c | 2 us | 2.00 |" in table and "| bytes | 26 |" in table
    text = f"before\n{script.BEGIN}old\n{script.END}after\n"
    assert script.replaced(text, "new\n") == f"before\n{script.BEGIN}\nnew\n\n{script.END}after\n"
