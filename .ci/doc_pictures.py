"""Draw the pictures that docs/pictures.md shows, into docs/pictures; a test compares them.

    python .ci/doc_pictures.py
    python .ci/render_pictures.py docs/pictures --shots docs/pictures

The first line writes SVG and Mermaid files, the second PNG files of what Mermaid makes of these.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

import fastad as ad

FOLDER = Path(__file__).resolve().parent.parent / "docs" / "pictures"


def cubic() -> ad.Picture:
    x = ad.tensor(3.0, requires_grad=True)
    y = x**3 + x**2
    return ad.draw(y)


def quotient() -> ad.Picture:
    x = ad.tensor(2.0, requires_grad=True)
    y = np.sin(x) / x
    return ad.draw(y)


def loop() -> ad.Picture:
    def f(x):
        y = x
        for _ in range(1000):
            y = ad.sin(y) * 1.01 + 0.1
        return y

    return ad.draw(f, 1.0)


PICTURES = {"cubic": cubic, "quotient": quotient, "loop": loop}

if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for name, picture in PICTURES.items():
        made = picture()
        made.save(FOLDER / f"{name}.svg")
        made.save(FOLDER / f"{name}.mmd")
