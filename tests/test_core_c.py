"""The C core's own tests (core/test_core.c) under AddressSanitizer and UBSan."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
CORE = HERE.parent / "src" / "fastad" / "core"
FLAGS = ["-std=gnu11", "-g", "-O1", "-Wall", "-Wextra", "-Werror",
         "-fsanitize=address,undefined", "-fno-sanitize-recover=undefined", "-DFAD_NO_CLONES"]


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    compiler = shutil.which(os.environ.get("CC", "gcc"))
    if compiler is None:
        pytest.skip("there is no C compiler")
    if not CORE.is_dir():
        pytest.skip("the core's sources are not here")
    folder = tmp_path_factory.mktemp("core")
    (folder / "empty.c").write_text("int main(void) { return 0; }\n")
    sanitized = subprocess.run([compiler, "-fsanitize=address,undefined", "empty.c"], cwd=folder,
                               capture_output=True)
    if sanitized.returncode:
        pytest.skip(f"{compiler} has no sanitizers")
    built = folder / "test_core"
    sources = sorted(str(path) for path in CORE.glob("*.c"))
    done = subprocess.run(
        [compiler, *FLAGS, f"-I{CORE}", str(HERE / "core" / "test_core.c"), *sources, "-lm",
         "-o", str(built)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return built


def run(program, *arguments):
    # Where the whole process is traced, as in some containers, leaks cannot be looked for.
    options = "detect_leaks=1:halt_on_error=1"
    return subprocess.run([program, *arguments], capture_output=True, text=True,
                          env={**os.environ, "ASAN_OPTIONS": options})


@pytest.mark.skipif(sys.platform != "linux", reason="the leak checker is Linux's")
def test_the_core_passes_its_tests_with_no_finding_of_the_sanitizers(program):
    done = run(program)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.endswith(" passed, 0 failed\n")
    assert done.stderr == ""


@pytest.mark.skipif(sys.platform != "linux", reason="the leak checker is Linux's")
def test_a_leak_is_found_when_there_is_one(program):
    done = run(program, "--leak")
    assert done.returncode != 0
    assert "LeakSanitizer: detected memory leaks" in done.stderr
