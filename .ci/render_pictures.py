"""Render Mermaid pictures with Mermaid itself, in a headless Chromium.

    python .ci/render_pictures.py FOLDER [--npm FOLDER] [--shots FOLDER]

Reads every .mmd in FOLDER and fails if Mermaid refuses one, or leaves a formula as it stands.  The
npm package mermaid is installed into the folder of --npm unless it is there; Chromium must be
installed (Debian: chromium).  With --shots each picture becomes a PNG as well.
"""

from __future__ import annotations

import argparse
import html
import json
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

PACKAGE = "mermaid@11"
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
BATCH = 40

PAGE = """<!DOCTYPE html>
<html><head><meta charset="utf-8"><style>
body {{ margin: 8px; background: white; overflow: hidden; }}
svg {{ max-width: none !important; }}</style><script src="{script}"></script></head><body>
<div id="at"></div><pre id="told"></pre>
<script type="application/json" id="pictures">{pictures}</script>
<script>
(async () => {{
  const told = [];
  mermaid.initialize({{ startOnLoad: false, securityLevel: "strict",
                       flowchart: {{ useMaxWidth: false }} }});
  const pictures = JSON.parse(document.getElementById("pictures").textContent);
  for (const [name, source] of pictures) {{
    try {{
      const {{ svg }} = await mermaid.render("p" + told.length, source);
      document.getElementById("at").innerHTML = svg;
      const box = document.querySelector("#at svg").getBoundingClientRect();
      const math = document.querySelectorAll("#at math").length;
      const wrong = document.querySelectorAll("#at merror, #at .katex-error").length;
      const rows = document.querySelectorAll("#at mtr").length;
      const arrows = document.querySelectorAll("#at path[marker-end]").length;
      told.push([name, wrong ? "a formula is wrong" : "",
                 Math.ceil(box.width), Math.ceil(box.height), math, rows, arrows]);
    }} catch (error) {{
      told.push([name, String(error && error.message || error), 0, 0, 0, 0, 0]);
    }}
  }}
  document.getElementById("told").textContent = "TOLD" + JSON.stringify(told) + "TOLD";
  if ({shot}) document.getElementById("told").remove();
}})();
</script></body></html>
"""


def browse(browser: str, folder: Path, page: str, *options: str) -> str:
    """Open a page and give back what it has become."""
    path = folder / "page.html"
    path.write_text(page, encoding="utf-8")
    command = [
        browser, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
        "--disable-background-networking", "--disable-component-update", "--disable-sync",
        "--allow-file-access-from-files", f"--user-data-dir={folder / 'profile'}",
        "--virtual-time-budget=60000", *options, path.as_uri(),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    if done.returncode:
        raise SystemExit(f"{browser} failed: {done.stderr[-2000:]}")
    return done.stdout


def page_of(script: Path, pictures: list[tuple[str, str]], shot: bool) -> str:
    data = json.dumps(pictures).replace("<", "\\u003c")
    return PAGE.format(script=script.as_uri(), pictures=data, shot="true" if shot else "false")


def expected(source: str) -> tuple[int, int, int]:
    """How many formulas, rows in these, and arrows the picture must show."""
    rows = source.count(r"\cr ") + source.count(r"\begin{gathered}")
    arrows = len(re.findall(r"^ +\w+ -\.?->", source, re.MULTILINE))
    return source.count("$$") // 2, rows, arrows


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--npm", type=Path, default=Path(tempfile.gettempdir()) / "fastad-mermaid")
    parser.add_argument("--shots", type=Path)
    given = parser.parse_args()
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        raise SystemExit("no Chromium found")
    script = given.npm / "node_modules" / "mermaid" / "dist" / "mermaid.min.js"
    if not script.exists():
        given.npm.mkdir(parents=True, exist_ok=True)
        subprocess.run(["npm", "install", "--silent", "--no-audit", "--no-fund", "--prefix",
                        str(given.npm), PACKAGE], check=True)
    pictures = [(p.stem, p.read_text(encoding="utf-8")) for p in sorted(given.folder.glob("*.mmd"))]
    if not pictures:
        raise SystemExit(f"there are no .mmd files in {given.folder}")
    failures = []
    sizes = {}
    with tempfile.TemporaryDirectory() as work:
        folder = Path(work)
        for k in range(0, len(pictures), BATCH):
            batch = pictures[k : k + BATCH]
            dom = browse(browser, folder, page_of(script, batch, False), "--dump-dom")
            found = re.search(r"TOLD(.*?)TOLD</pre>", dom, re.DOTALL)
            if found is None:
                raise SystemExit(f"the page did not finish; it ends in {dom[-1000:]}")
            told = json.loads(html.unescape(found.group(1)))
            for (name, source), (_, error, width, height, *shown) in zip(batch, told):
                if not error and tuple(shown) != expected(source):
                    error = f"{shown} formulas, rows and arrows, not {expected(source)}"
                if error:
                    failures.append(f"{name}: {error}\n{source[:2000]}")
                sizes[name] = width, height
        if given.shots is not None:
            given.shots.mkdir(parents=True, exist_ok=True)
            for name, source in pictures:
                width, height = sizes[name]
                if 0 < width < 8000 and 0 < height < 8000:
                    browse(browser, folder, page_of(script, [(name, source)], True),
                           f"--screenshot={given.shots.resolve() / name}.png",
                           f"--window-size={width + 24},{height + 24}")
    for failure in failures:
        print(failure)
    print(f"Mermaid rendered {len(pictures) - len(failures)} of {len(pictures)} pictures")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
