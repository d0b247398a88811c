"""The report page: complete, true to its sources, deaf to what models wrote, and silent on the network."""

from __future__ import annotations

import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from report_fixture import HOSTILE, write_study

from trueup.errors import UserError
from trueup.study.report import write_report

SECTIONS = (
    "verdict", "results", "contrasts", "frontier", "prompts", "responses", "length", "training", "reward-model",
    "findings", "cautions", "budgets", "reproduce",
)  # fmt: skip
CHARTS = (
    "scores", "ranks", "contrasts", "frontier", "parting-dpo", "parting-ppo", "parting-grpo", "prompts", "families",
    "length-gold", "length-proxy", "reliability",
)  # fmt: skip


class Page(HTMLParser):
    """Collects elements with their attributes, and the text that a reader sees apart from scripts and styles."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: dict[str, str] = {}
        self.text = ""
        self.tables: list[list[list[str]]] = []
        self._inside = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note the element, and open a table, row or cell."""
        self.elements.append((tag, dict(attrs)))
        if tag in ("script", "style"):
            self._inside = dict(attrs).get("id") or tag
        elif tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")

    def handle_endtag(self, tag: str) -> None:
        """Leave a script or style."""
        if tag in ("script", "style"):
            self._inside = ""

    def handle_data(self, data: str) -> None:
        """Sort text into scripts, cells and the page."""
        if self._inside:
            self.scripts[self._inside] = self.scripts.get(self._inside, "") + data
            return
        self.text += data
        if self.tables and self.tables[-1] and self.tables[-1][-1]:
            self.tables[-1][-1][-1] += data


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study folder with its report written."""
    folder = write_study(tmp_path_factory.mktemp("study"))
    write_report(folder)
    return folder


@pytest.fixture(scope="module")
def page(folder: Path) -> Page:
    """The report, parsed."""
    return Page((folder / "report.html").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def study(folder: Path) -> dict[str, Any]:
    """The numbers that the report must show."""
    return json.loads((folder / "study.json").read_text(encoding="utf-8"))


def edited(folder: Path, target: Path, change: Any) -> Path:
    """Copy a study folder and change its study.json."""
    target.mkdir()
    shutil.copy(folder / "items.parquet", target)
    study = json.loads((folder / "study.json").read_text(encoding="utf-8"))
    change(study)
    (target / "study.json").write_text(json.dumps(study), encoding="utf-8")
    return target


def written(value: float) -> str:
    """Write a number as the page should: two decimals, true minus, no negative zero."""
    text = format(value, ",.2f")
    return "0.00" if text == "-0.00" else text.replace("-", "\u2212")


def test_every_section_is_there_and_in_the_contents(page: Page) -> None:
    identifiers = [attributes.get("id") for _, attributes in page.elements]
    links = [attributes.get("href") for tag, attributes in page.elements if tag == "a"]
    for section in SECTIONS:
        assert identifiers.count(section) == 1
        assert f"#{section}" in links


def test_every_chart_has_its_place_and_its_data(page: Page) -> None:
    figures = json.loads(page.scripts["charts"])
    places = [attributes["data-chart"] for _, attributes in page.elements if "data-chart" in attributes]
    assert sorted(places) == sorted(figures)
    assert set(CHARTS) <= set(figures)
    assert all(figure["data"] for figure in figures.values())


def test_curves_are_drawn_for_arms_that_have_them_and_no_other(page: Page) -> None:
    curves = [key for key in json.loads(page.scripts["charts"]) if key.startswith("curve-")]
    assert sum(key.startswith("curve-dpo-tuned-") for key in curves) == 5
    assert sum(key.startswith("curve-grpo-tuned-") for key in curves) == 4
    assert not any(key.startswith("curve-ppo-tuned-") for key in curves)


def test_main_table_shows_the_numbers_of_the_study(page: Page, study: dict[str, Any]) -> None:
    metrics = ["gold", "proxy", "kl/sequence", "kl/token", "length", "eos_rate", "truncation_rate"]
    header, *rows = page.tables[0]
    assert len(rows) == len(study["arms"])
    assert len(header) == 1 + len(metrics) + 2
    for arm, row in zip(study["arms"], rows, strict=True):
        assert row[0].strip() == arm["label"]
        for metric, cell in zip(metrics, row[1:], strict=False):
            measured = arm["metrics"][metric]
            shown = [measured[key] for key in ("mean", "low", "high") if measured[key] is not None]
            found = re.findall(r"−?[\d,]+\.\d+", cell)
            assert found == [written(value) for value in shown]
            assert ("–" in cell) == (measured["mean"] is None)
        best, worst = study["rank_sets"]["gold"][arm["name"]]
        assert row[-2].strip() == (str(best) if best == worst else f"{best}–{worst}")


def test_no_number_in_the_other_tables_is_invented(page: Page, study: dict[str, Any]) -> None:
    def numbers(value: Any) -> set[str]:
        if isinstance(value, dict):
            return set().union(*map(numbers, value.values())) if value else set()
        if isinstance(value, list):
            return set().union(*map(numbers, value)) if value else set()
        return {written(value).lstrip("−")} if isinstance(value, int | float) else set()

    known = numbers({**study, "curves": {}})
    named = [table for table in page.tables if table[0][0].strip() in ("Contrast", "Seed")]
    assert len(named) == 2
    for table in named:
        for row in table[1:]:
            for cell in row[1:]:
                for found in re.findall(r"(?<![\d.])[\d,]+\.\d\d(?!\d)", cell):
                    assert found in known


def test_one_finding_counts_once_however_many_seeds_it_fired_in(page: Page) -> None:
    by_label = {row[0].strip(): row[-1].strip() for row in page.tables[0][1:]}
    assert by_label["PPO, as published"] == "1 fatal"
    assert by_label["DPO, as published"] == "1 warning"
    assert by_label["SFT"] == "none"
    for seed, step in ((0, 60), (1, 80), (2, 100)):
        assert f"seed {seed}, from step {step}" in page.text


def test_hostile_text_is_carried_but_never_as_markup(folder: Path, page: Page) -> None:
    raw = (folder / "report.html").read_text(encoding="utf-8")
    assert sum(tag == "script" for tag, _ in page.elements) == 4
    assert not {"img", "iframe", "object", "embed", "base"} & {tag for tag, _ in page.elements}
    assert not [key for _, attributes in page.elements for key in attributes if key.startswith("on")]
    for text in HOSTILE:
        if "<" in text:
            assert text not in raw
    embedded = [answer[0] for prompt in json.loads(page.scripts["items"])["prompts"] for answer in prompt["answers"]]
    assert set(HOSTILE) <= set(embedded)
    assert "<b>here</b>" in page.text


def test_embedded_data_cannot_leave_their_script_element(page: Page) -> None:
    for identifier in ("charts", "items"):
        assert not re.search(r"[<>&\u2028\u2029]", page.scripts[identifier])


@pytest.mark.parametrize("field", ["name", "question", "command", "verdicts", "cautions", "label", "family", "rule"])
def test_hostile_names_are_escaped_in_page_and_markdown(folder: Path, tmp_path: Path, field: str) -> None:
    attack = "x</script><script>alert(9)</script>\"'><img src=x onerror=alert(9)> [a](http://evil.example) |"

    def change(study: dict[str, Any]) -> None:
        if field in ("verdicts", "cautions"):
            study[field] = [attack]
        elif field == "label":
            study["arms"][1]["label"] = attack
        elif field == "family":
            study["families"][0]["family"] = attack
        elif field == "rule":
            study["findings"][0]["rule"] = attack
        else:
            study[field] = attack

    target = edited(folder, tmp_path / "study", change)
    raw = write_report(target).read_text(encoding="utf-8")
    assert "<img src=x" not in raw
    assert "<script>alert" not in raw
    assert sum(tag == "script" for tag, _ in Page(raw).elements) == 4
    short = (target / "report.md").read_text(encoding="utf-8")
    outside_code = re.sub(r"`[^`]*`", "", short)
    assert "<img" not in outside_code
    assert "<script" not in outside_code
    assert "](http" not in outside_code.replace("\\]", "")


def test_nothing_is_loaded_from_outside(page: Page) -> None:
    for tag, attributes in page.elements:
        assert tag != "link"
        for key in ("src", "srcset", "data", "action", "poster"):
            assert key not in attributes
        if tag == "a":
            assert str(attributes["href"]).startswith("#")
    assert "url(" not in page.scripts["style"]
    assert "@import" not in page.scripts["style"]
    policy = next(a["content"] for t, a in page.elements if t == "meta" and "http-equiv" in a)
    assert str(policy).startswith("default-src 'none'; script-src 'sha256-")
    assert "unsafe-inline" not in str(policy).split("style-src")[0]


def test_findings_about_reward_models_are_on_the_page(folder: Path) -> None:
    raw = (folder / "report.html").read_text(encoding="utf-8")
    text = " ".join(Page(raw).text.split())
    assert "reward model rm-memorised What rm-memorised means." in text
    assert "seed 0, from step 0 gap 0.31" in text and "seed 2, from step 0 gap 2.31" in text
    counted = re.findall(r'<th scope="row">(\d)</th>.*<td class="words[ a-z]*">([^<]*)</td></tr>', raw)
    assert counted == [("0", "1 fatal"), ("1", "1 warning"), ("2", "1 fatal")]


def test_the_same_folder_gives_the_same_report(folder: Path, tmp_path: Path) -> None:
    first = (folder / "report.html").read_bytes()
    copy = edited(folder, tmp_path / "copy", lambda study: None)
    assert write_report(copy).read_bytes() == first


def test_only_the_report_is_written(folder: Path) -> None:
    assert sorted(path.name for path in folder.iterdir()) == ["items.parquet", "report.html", "report.md", "study.json"]


def test_an_almost_empty_study_still_has_a_page(folder: Path, tmp_path: Path) -> None:
    def strip(study: dict[str, Any]) -> None:
        for key in ("contrasts", "families", "frontier", "findings", "verdicts", "cautions"):
            study[key] = []
        study["rank_sets"], study["curves"], study["environment"] = {}, {}, {}
        study["reward_model"] = {"per_seed": [], "reliability": []}
        study["seconds"] = {"total": None, "stages": []}
        study["arms"] = study["arms"][:1]
        study["arms"][0]["metrics"] = {}

    page = Page(write_report(edited(folder, tmp_path / "bare", strip)).read_text(encoding="utf-8"))
    identifiers = [attributes.get("id") for _, attributes in page.elements]
    assert set(SECTIONS) <= set(identifiers)
    for words in (
        "No verdict was reached",
        "No contrasts were computed",
        "No health rule fired",
        "there is no frontier",
    ):
        assert words in page.text


def test_an_unwritable_folder_is_the_users_to_mend(folder: Path, tmp_path: Path) -> None:
    target = edited(folder, tmp_path / "study", lambda study: None)
    (target / ".report.md.part").mkdir()
    with pytest.raises(UserError, match=r"report\.md: cannot be written"):
        write_report(target)
    assert not (target / "report.html").exists()
