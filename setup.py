"""The extension module; everything else is in pyproject.toml."""
import sys

import numpy as np
from Cython.Build import cythonize
from setuptools import Extension, setup

SOURCES = ["tape", "array", "complex", "kernels", "sums", "picks", "sweep", "expand", "compile",
           "vm", "live", "lanes", "native", "names"]
DEPENDS = ["ops.def", "fad.h", "kernels.h", "special.h", "vm.h",
           "vm_impl.h", "native.h"]

if sys.platform == "win32":
    flags = ["/O2", "/std:c11", "/fp:precise"]
    libraries = []
else:
    # No contraction to fused multiply-add: results must not depend on the machine.
    flags = ["-O3", "-std=gnu11", "-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math",
             "-fvisibility=hidden",
             "-fwrapv", "-g0"]
    libraries = ["m"]

setup(
    ext_modules=cythonize(
        [
            Extension(
                "fastad._core",
                ["src/fastad/_core.pyx"] + [f"src/fastad/core/{name}.c" for name in SOURCES],
                depends=[f"src/fastad/core/{name}" for name in DEPENDS] + [
                    "src/fastad/record.h", "src/fastad/tensor_object.h", "src/fastad/cfad.pxd",
                    "src/fastad/places.h", "src/fastad/blame.pxi", "src/fastad/views.pxi",
                    "src/fastad/program.pxi", "src/fastad/graph.pxi", "src/fastad/native.pxi",
                    "src/fastad/lanes.pxi", "src/fastad/complex.pxi",
                    "src/fastad/values.pxi", "src/fastad/draw.pxi"],
                include_dirs=["src/fastad/core", "src/fastad", np.get_include()],
                define_macros=[("NPY_NO_DEPRECATED_API", "NPY_2_0_API_VERSION")],
                extra_compile_args=flags,
                libraries=libraries,
            )
        ],
        compiler_directives={"language_level": 3},
        include_path=["src"],
    )
)
