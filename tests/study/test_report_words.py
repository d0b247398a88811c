"""Numbers, tiles, Markdown and the terminal table say the same thing in the same way."""

from __future__ import annotations

import io
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from report_fixture import write_study
from rich.console import Console

from trueup.study.folder import read_study
from trueup.study.format import duration, fixed, interval, p_value, plain, scaled, signed, whole
from trueup.study.markdown import study_markdown
from trueup.study.rows import reward_model_findings, shown_columns
from trueup.study.schema import Contrast, Study
from trueup.study.table import study_table, verdict_panel
from trueup.study.tiles import against_baseline, tiles


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    """A plausible study."""
    return read_study(write_study(tmp_path_factory.mktemp("study"), prompts=18))


def printed(renderable: Any, width: int = 80) -> str:
    """Return what a terminal of this width shows."""
    console = Console(width=width, record=True, color_system=None, file=io.StringIO())
    console.print(renderable)
    return console.export_text()


@settings(deadline=None)
@given(st.floats(-1e9, 1e9))
def test_two_decimals_read_back_as_the_number(value: float) -> None:
    text = fixed(value)
    assert re.fullmatch(r"−?\d{1,3}(,\d{3})*\.\d\d", text)
    assert float(text.replace("−", "-").replace(",", "")) == pytest.approx(value, abs=0.005 + 1e-6)
    assert text != "−0.00"


@settings(deadline=None)
@given(st.floats(-1e6, 1e6))
def test_a_difference_has_exactly_one_sign_unless_it_is_zero(value: float) -> None:
    text = signed(value)
    assert text.lstrip("+−") == fixed(value).lstrip("−")
    assert (text[0] in "+−") == (abs(round(value, 2)) > 0)


@settings(deadline=None)
@given(st.floats(1e4, 9e20))
def test_large_counts_keep_three_digits_in_a_short_word(value: float) -> None:
    text = scaled(value)
    size = {"k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15, "E": 1e18}[text[-1]]
    assert float(text[:-1]) * size == pytest.approx(value, rel=0.0051)
    assert len(text) <= 5


def test_numbers_that_are_not_available_are_a_dash_everywhere() -> None:
    for write in (fixed, signed, whole, scaled, p_value, duration):
        assert write(None) == write(float("nan")) == write(float("inf")) == "–"
    assert interval(None, 1.0) == interval(1.0, None) == ""
    assert interval(-0.5, 0.004) == "[−0.50, 0.00]"


def test_a_p_value_is_never_printed_as_zero() -> None:
    assert p_value(1e-9) == "< 0.001"
    assert p_value(0.05) == "0.050"


def test_durations_change_their_unit_without_a_gap() -> None:
    assert [duration(s) for s in (3.14159, 59.6, 119.4, 120.0, 3600.0, 7320.0)] == [
        "3.1 s", "60 s", "119 s", "2 min 00 s", "60 min 00 s", "2 h 02 min",
    ]  # fmt: skip


@settings(deadline=None)
@given(st.text())
def test_plain_text_cannot_move_the_cursor(text: str) -> None:
    clean = plain(text)
    assert len(clean) == len(text)
    assert not any(ord(c) < 32 and c != "\n" for c in clean)
    assert not set(clean) & set("\x1b\x7f\x9b\u202e\u2066")


def contrast(a: str, b: str, estimate: float, verdict: Any) -> Contrast:
    """Return a contrast with an interval of 0.1 to each side."""
    ends = {"low": estimate - 0.1, "high": estimate + 0.1, "p": 0.01, "p_holm": 0.02, "n_needed": None}
    return Contrast(a=a, b=b, metric="gold", estimate=estimate, verdict=verdict, **ends)


def test_contrasts_are_turned_towards_the_baseline(study: Study) -> None:
    turned = {**study, "contrasts": [contrast("sft", "dpo-tuned", -0.5, "worse")]}
    (found,) = against_baseline(turned)
    assert (found["a"], found["b"], found["verdict"]) == ("dpo-tuned", "sft", "better")
    assert (found["estimate"], found["low"], found["high"]) == (0.5, 0.4, 0.6)
    assert tiles(turned)[0].value == "+0.50"


def test_tiles_claim_a_gain_only_where_a_verdict_does(study: Study) -> None:
    undecided = [{**c, "verdict": "inconclusive"} for c in study["contrasts"]]
    gain, parting, *_ = tiles({**study, "contrasts": undecided})
    assert gain.value == "none shown"
    assert parting.value == "no arm"


def test_the_parting_tile_names_the_arm_that_lost_most_while_its_proxy_rose(study: Study) -> None:
    parting = tiles(study)[1]
    assert "PPO, as published" in parting.detail
    before, after = (float(text) for text in parting.value.split(" → "))
    assert after < before
    lower = [
        {**arm, "metrics": {**arm["metrics"], "proxy": {**arm["metrics"]["proxy"], "mean": -9.0}}}
        for arm in study["arms"][1:]
    ]
    assert tiles({**study, "arms": [study["arms"][0], *lower]})[1].value == "no arm"


def test_the_primary_metric_leads_the_table(study: Study) -> None:
    judged = [
        {**arm, "metrics": {"proxy": arm["metrics"]["proxy"], "judge": arm["metrics"]["gold"]}} for arm in study["arms"]
    ]
    columns = shown_columns({**study, "primary_metric": "judge", "arms": judged})
    assert [column.metric for column in columns] == ["judge", "proxy"]


def test_the_terminal_table_fits_eighty_columns_and_loses_no_number(study: Study) -> None:
    text = printed(study_table(study))
    assert max(map(len, text.splitlines())) <= 80
    assert "…" not in text
    for arm in study["arms"]:
        for metric in ("gold", "proxy", "kl/sequence"):
            measured = arm["metrics"][metric]
            assert fixed(measured["mean"]) in text
            assert interval(measured["low"], measured["high"]) in text


def test_the_terminal_is_deaf_to_markup_and_control_codes(study: Study) -> None:
    hostile = "\x1b[2J[bold]x[/bold] [link=http://evil.example]y[/link]"
    arms = [{**study["arms"][0], "label": hostile}]
    changed = {**study, "arms": arms, "question": hostile, "verdicts": [hostile], "cautions": [hostile]}
    for renderable in (study_table(changed), verdict_panel(changed)):
        text = printed(renderable, width=120)
        assert "\x1b" not in text
        assert "[bold]x[/bold]" in text


def test_verdict_and_cautions_are_in_the_panel(study: Study) -> None:
    text = " ".join(printed(verdict_panel(study), width=200).split())
    for sentence in (*study["verdicts"], *study["cautions"], study["question"]):
        assert sentence in text


def test_findings_about_reward_models_name_their_seeds_in_every_form(study: Study) -> None:
    terminal = " ".join(printed(study_table(study)).split())
    assert "Reward models: fatal rm-memorised (seeds 0, 2); warning rm-follows-length (seed 1)" in terminal
    text = study_markdown(study)
    assert "**fatal** `rm-memorised` in reward model (seeds 0, 2): What rm-memorised means. More pairs." in text
    assert "**warning** `rm-follows-length` in reward model (seed 1)" in text
    assert reward_model_findings(study) == {0: "1 fatal", 1: "1 warning", 2: "1 fatal"}


def test_a_study_whose_reward_models_are_sound_says_nothing_of_them(study: Study) -> None:
    quiet: Any = {**study, "findings": [f for f in study["findings"] if f["arm"] != "reward model"]}
    assert "Reward models" not in printed(study_table(quiet))
    assert set(reward_model_findings(quiet).values()) == {"none"}


def test_markdown_tables_are_whole_and_carry_the_numbers(study: Study) -> None:
    text = study_markdown(study)
    for heading in ("## Contrasts", "## Findings", "## Cautions"):
        assert heading in text
    tables = [block.splitlines() for block in text.split("\n\n") if block.startswith("|")]
    assert len(tables) == 2
    for table in tables:
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in table}) == 1
    assert len(tables[0]) == 2 + len(study["arms"])
    assert len(tables[1]) == 2 + len(study["contrasts"])
    assert signed(study["contrasts"][1]["estimate"]) in tables[1][3]


@settings(deadline=None)
@given(st.text(max_size=40))
def test_no_name_can_break_a_markdown_table(label: str) -> None:
    arm: Any = {"name": "a", "label": label, "method": "sft", "setting": "start", "metrics": {}}
    text = study_markdown(_tiny(arm))
    (table,) = [block for block in text.split("\n\n") if block.startswith("| Arm")]
    lines = table.splitlines()
    assert len(lines) == 3
    assert len({len(re.findall(r"(?<!\\)\|", line)) for line in lines}) == 1
    assert "<" not in lines[2]


def _tiny(arm: Any) -> Any:
    return {
        "name": "n", "question": "q", "date": "d", "command": "c", "world": {"name": "w"}, "primary_metric": "gold",
        "smallest_effect": None, "design": {"seeds": [0], "prompts": 1, "draws": 1}, "arms": [arm], "contrasts": [],
        "rank_sets": {}, "findings": [], "verdicts": [], "cautions": [],
    }  # fmt: skip
