"""The report in a real headless browser: nothing complains, no response runs, every response is readable."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from html import unescape
from pathlib import Path

import pytest
from report_fixture import HOSTILE, PLANS, write_study

from trueup.study.report import write_report

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--virtual-time-budget=15000", "--enable-logging=stderr", "--v=0",
)  # fmt: skip
# Runs before everything else on the page; reads each prompt's cards as the reader would, by pressing the button.
DRIVER = """<script>
const seen = { fired: [], broken: [], texts: [], elements: 0, found: "", opened: "", wide: 0 };
for (const name of ["alert", "confirm", "prompt"]) window[name] = (text) => { seen.fired.push(String(text)); };
addEventListener("error", (event) => seen.broken.push(event.message));
addEventListener("load", () => setTimeout(() => {
  const next = document.querySelector("[name=next]");
  for (;;) {
    for (const text of document.querySelectorAll(".card .text")) {
      seen.texts.push(text.textContent);
      seen.elements += text.children.length;
    }
    if (next.disabled) break;
    next.click();
  }
  const search = document.querySelector("[name=search]");
  search.value = "no such words anywhere";
  search.dispatchEvent(new Event("input", { bubbles: true }));
  seen.found = document.querySelector("[name=place]").value;
  const heat = document.querySelector("[data-chart=prompts]");
  heat.emit("plotly_click", { points: [{ customdata: "p007" }] });
  seen.opened = document.querySelector(".prompt .kicker").textContent;
  seen.wide = document.documentElement.scrollWidth - document.documentElement.clientWidth;
  const result = document.createElement("pre");
  result.id = "seen";
  result.textContent = JSON.stringify(seen);
  document.body.append(result);
}, 3000));
</script>"""

pytestmark = pytest.mark.skipif(BROWSER is None, reason="no Chromium found")


def visit(page: Path, size: str = "1280,1000") -> tuple[str, list[str]]:
    """Open a page; return its final DOM and the lines of its console."""
    command = [
        str(BROWSER),
        *FLAGS,
        f"--window-size={size}",
        f"--user-data-dir={page.parent / 'profile'}",
        "--dump-dom",
    ]
    done = subprocess.run([*command, page.as_uri()], capture_output=True, timeout=120, check=False)
    console = [line for line in done.stderr.decode(errors="replace").splitlines() if "CONSOLE" in line]
    return done.stdout.decode(errors="replace"), console


def pictured(character: str) -> str:
    """Return how a reader should see a character that would otherwise hide or turn the text."""
    if character in "\u202e\u202c":
        return f"⟨U+{ord(character):04x}⟩"
    return chr(0x2400 + ord(character)) if ord(character) < 32 and character not in "\t\n" else character


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report full of hostile responses."""
    return write_report(write_study(tmp_path_factory.mktemp("study"), prompts=20, draws=1))


def test_the_watch_itself_notices_what_it_should(tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    page.write_text("<body><script>console.error('noticed')</script><script>broken(</script>", encoding="utf-8")
    _, console = visit(page)
    assert any("noticed" in line for line in console)
    assert any("SyntaxError" in line for line in console)


def test_the_console_stays_silent_under_the_pages_own_policy(report: Path) -> None:
    dom, console = visit(report)
    assert console == []
    assert dom.count('class="main-svg"') >= 30
    assert "Order the packing list" in dom


@pytest.mark.parametrize("size", ["1280,1000", "500,1000"])
def test_no_response_runs_and_every_response_is_read(report: Path, tmp_path: Path, size: str) -> None:
    unguarded = re.sub(r"<meta http-equiv=[^>]*>", "", report.read_text(encoding="utf-8"))
    page = tmp_path / "page.html"
    page.write_text(unguarded.replace("<head>", "<head>" + DRIVER, 1), encoding="utf-8")
    dom, console = visit(page, size)
    found = re.search(r'<pre id="seen">(.*?)</pre>', dom, re.DOTALL)
    assert found is not None
    seen = json.loads(unescape(found.group(1)))
    assert (seen["fired"], seen["broken"], console) == ([], [], [])
    assert seen["elements"] == 0
    assert len(seen["texts"]) == 20 * len(PLANS)
    assert seen["found"] == "none"
    assert seen["opened"].endswith("prompt p007")
    assert seen["wide"] <= 0, "the page scrolls sideways"
    assert {"".join(map(pictured, text)) for text in HOSTILE if text} <= set(seen["texts"])
    assert "(empty response)" in seen["texts"]
