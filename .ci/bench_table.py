"""Put the figures of `python -m benches --json bench.json` into README.md.

    python .ci/bench_table.py bench.json
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

README = Path(__file__).resolve().parent.parent / "README.md"
BEGIN, END = "<!-- benchmarks: begin -->\n", "<!-- benchmarks: end -->\n"
RIVALS = ["fastad", "floats", "NumPy", "PyTorch", "JAX", "autograd", "mygrad", "micrograd", "xad",
          "casadi", "casadi Function"]
HEADINGS = {"fastad": "fastad, ordinary code"}      # the rival of its programs


def seconds(value: float) -> str:
    for unit, size in (("ns", 1e-9), ("us", 1e-6), ("ms", 1e-3)):
        if value < 1000 * size:
            return f"{value / size:.3g} {unit}"
    return f"{value:.3g} s"


def factor(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.2g}" if value >= 10 else f"{value:.2f}"


def table(measured: dict) -> str:
    about = measured["environment"]
    cells: dict[str, dict[str, str]] = {}
    own: dict[str, list[float]] = {}
    for row in measured["ratios"]:
        cells.setdefault(row["case"], {})[row["rival"]] = factor(1 / row["ratio"])
        own.setdefault(row["case"], []).append(row["fastad_seconds"][1])
    rivals = [name for name in RIVALS if any(name in found for found in cells.values())]
    lines = [
        f"{about['processor']}, {about['cpus']} CPUs, one thread each, {about['time'][:10]}. "
        + ", ".join(f"{name} {version}" for name, version in about["versions"].items()) + ".",
        "",
        "| case | time | " + " | ".join(HEADINGS.get(name, name) for name in rivals) + " |",
        "|---" * (len(rivals) + 2) + "|",
    ]
    for case, found in cells.items():
        ours = seconds(sorted(own[case])[len(own[case]) // 2])
        lines.append(f"| {case} | {ours} | "
                     + " | ".join(found.get(name, "") for name in rivals) + " |")
    lines += ["", "| figure | value |", "|---|---|"]
    lines += [f"| {row['figure']} | {row['value']:.4g} |" for row in measured["figures"]]
    return "\n".join(lines) + "\n"


def replaced(readme: str, new: str) -> str:
    """The text with what stands between the markers exchanged."""
    before, rest = readme.split(BEGIN)
    _, after = rest.split(END)
    return before + BEGIN + "\n" + new + "\n" + END + after


if __name__ == "__main__":
    README.write_text(replaced(README.read_text(),
                               table(json.loads(Path(sys.argv[1]).read_text()))))
