"""Run .ci/leak_loop.py under valgrind; exit with 1 if it finds anything in fastad's code.

Findings in the interpreter's or NumPy's own code are not counted.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ElementTree
from pathlib import Path

LOOP = Path(__file__).resolve().parent / "leak_loop.py"
OURS = "/fastad/_core"


def findings(xml: str) -> list[str]:
    """Return a text for every error in valgrind's report with a frame of ours."""
    found = []
    for error in ElementTree.fromstring(xml).iter("error"):
        kind = error.findtext("kind", "")
        frames = error.findall("stack/frame")
        if kind == "Leak_StillReachable" or not any(
                OURS in frame.findtext("obj", "") for frame in frames):
            continue
        what = error.findtext("what") or error.findtext("xwhat/text", "")
        calls = " < ".join(frame.findtext("fn", "?") for frame in frames[:6])
        found.append(f"{kind}: {what}: {calls}")
    return found


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        done = subprocess.run(
            ["valgrind", "--leak-check=full", "--show-leak-kinds=definite,indirect", "--xml=yes",
             f"--xml-file={report}", "--num-callers=20", sys.executable, str(LOOP), "100"],
            env={**os.environ, "PYTHONMALLOC": "malloc", "OPENBLAS_NUM_THREADS": "1"})
        found = findings(report.read_text())
    for text in found:
        print(text)
    print(f"valgrind: {len(found)} findings in fastad's code, exit status {done.returncode}")
    return int(bool(found) or done.returncode != 0)


if __name__ == "__main__":
    sys.exit(main())
