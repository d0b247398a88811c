"""The pictures of the README, from a finished study: its report in a browser, its tables in a terminal.

    python benchmarks/pictures.py runs/demo

Needs Chromium on the path and Pillow; writes docs/pictures/.
"""

from __future__ import annotations

import io
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image
from rich.console import Console

from trueup.study.folder import read_study
from trueup.study.table import study_table, verdict_panel

PICTURES = Path(__file__).parents[1] / "docs/pictures"
WIDTH, HEIGHT = 1280, 8200
CUTS = {"report-verdict": (0, 1330), "report-frontier": (3700, 4900), "report-responses": (6440, 7250)}
"""Name -> top and bottom of the part of the page that is shown."""

FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --hide-scrollbars --virtual-time-budget=10000"
)


def main(folder: Path) -> None:
    """Take the pictures."""
    PICTURES.mkdir(parents=True, exist_ok=True)
    console = Console(record=True, width=100, file=io.StringIO())
    study = read_study(folder)
    console.print(study_table(study))
    console.print(verdict_panel(study))
    drawing = console.export_svg(title="make demo")
    # The fonts would be fetched from the net; whatever monospace font is there will do.
    drawing = re.sub(r"@font-face \{.*?\}", "", drawing, flags=re.DOTALL)
    (PICTURES / "terminal.svg").write_text(drawing, encoding="utf-8")
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        raise SystemExit("no Chromium found")
    with tempfile.TemporaryDirectory() as scratch:
        shot = Path(scratch) / "page.png"
        options = [*FLAGS.split(), f"--user-data-dir={scratch}/profile", f"--window-size={WIDTH},{HEIGHT}"]
        page = (folder / "report.html").absolute().as_uri()
        subprocess.run([browser, *options, f"--screenshot={shot}", page], check=True, capture_output=True)
        whole = Image.open(shot).convert("RGB")
        for name, (top, bottom) in CUTS.items():
            part = whole.crop((0, top, WIDTH, bottom)).quantize(256)
            part.save(PICTURES / f"{name}.png", optimize=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
