"""``trueup data show`` and ``trueup data audit``: what they print, to whom, and what they refuse."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from refusals import one_line
from tiny_lab import Lab, write

from trueup.cli.main import main
from trueup.data.template import make_encoder
from trueup.models import hub

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRUEUP_CACHE", str(tmp_path / "cache"))


def said(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    capsys.readouterr()
    assert main(["data", *arguments]) == 0
    out = capsys.readouterr()
    assert out.err == ""
    return out.out


def spans(text: str) -> list[str]:
    """What stands in the brackets, without the signs between tokens."""
    found = re.findall(r"(?:chosen|rejected|wanted|unwanted|response) ⟦(.*?)⟧", text, re.DOTALL)
    return [re.sub(r"×\d", "", span.replace("│", "").replace("⏎\n", "\n").replace("·", " ")) for span in found]


def test_the_trained_span_can_be_read_off_without_colour(lab: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    text = said(capsys, "show", lab.pairs__jsonl, "--model", lab.model, "--rows", "4")
    lines = Path(lab.pairs__jsonl).read_text().splitlines()[:4]
    expected = [json.loads(line)[side] for line in lines for side in ("chosen", "rejected")]
    assert spans(text) == [f" {answer}■<|end|>" for answer in expected]
    assert "\x1b" not in text and f"{lab.pairs__jsonl}:1: tokens: prompt " in text
    assert "1 dropped: identical chosen and rejected" in text.splitlines()[0]


def test_shown_ids_are_those_of_the_encoder(lab: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    shown = json.loads(said(capsys, "show", lab.pairs__jsonl, "--model", lab.model, "--rows", "2", "--json"))
    encoder = make_encoder(hub.load_tokenizer(lab.model))
    lines = [json.loads(line) for line in Path(lab.pairs__jsonl).read_text().splitlines()]
    assert (shown["kind"], shown["kept"], shown["dropped"]) == ("pairs", 24, {"identical chosen and rejected": 1})
    for row, line in zip(shown["rows"], lines, strict=False):
        for side in ("chosen", "rejected"):
            pieces = row["responses"][side]
            assert tuple(i for piece in pieces for i in piece["ids"]) == encoder.response(line[side])
            assert pieces[-1] == {"ids": [encoder.terminator], "text": "<|end|>", "special": True}
        first, second = (encoder.response(line[side]) for side in ("chosen", "rejected"))
        at = row["first_difference"]
        assert first[:at] == second[:at] and first[at] != second[at]


def test_one_row_and_a_row_that_training_leaves_out(lab: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    text = said(capsys, "show", lab.pairs__jsonl, "--model", lab.model, "--row", "3")
    assert re.findall(r"jsonl:(\d+): tokens", text) == ["3"]
    sizes = [len(line) for line in Path(lab.pairs__jsonl).read_text().splitlines()]
    longest = sizes.index(max(sizes)) + 1
    data = json.loads(
        said(
            capsys,
            "show",
            lab.pairs__jsonl,
            "--model",
            lab.model,
            "--row",
            str(longest),
            "--max-length",
            "20",
            "--json",
        )
    )
    assert data["rows"][0]["left_out"] == "longer than 20 tokens" and data["dropped"]["longer than 20 tokens"] > 0


def test_colour_where_it_is_wanted_and_signs_where_it_is_not(
    lab: Lab, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    coloured = said(capsys, "show", lab.pairs__jsonl, "--model", lab.model, "--rows", "1")
    assert "\x1b[" in coloured and "⟦" not in coloured and "│" not in coloured
    monkeypatch.setenv("NO_COLOR", "1")
    plain = said(capsys, "show", lab.pairs__jsonl, "--model", lab.model, "--rows", "1")
    assert spans(re.sub(r"\x1b\[\d*m", "", plain))


def test_white_space_and_control_characters_are_visible(
    lab: Lab, files: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    row = {"prompt": "a", "chosen": "b\n\tc \x1b[31m", "rejected": "é"}
    text = said(capsys, "show", str(write(files / "p.jsonl", [row])), "--model", lab.model)
    assert "\x1b" not in text and "\\u001b" in text and "⏎\n" in text and "⇥" in text and "é×2" in text


@pytest.mark.parametrize(
    ("row", "kind", "sides"),
    [
        ({"prompt": "a", "response": "b"}, "examples", ["response"]),
        ({"prompt": "a", "completion": "b", "label": True}, "judged", ["wanted"]),
        ({"prompt": "a", "completion": "b", "label": False}, "judged", ["unwanted"]),
        ({"prompt": "a", "chosen": "b", "rejected": "c"}, "pairs", ["chosen", "rejected"]),
    ],
)
def test_the_kind_is_told_by_the_first_row(
    lab: Lab, files: Path, capsys: pytest.CaptureFixture[str], row: dict[str, Any], kind: str, sides: list[str]
) -> None:
    file = str(write(files / "rows.jsonl", [row]))
    shown = json.loads(said(capsys, "show", file, "--model", lab.model, "--json"))
    assert (shown["kind"], list(shown["rows"][0]["responses"])) == (kind, sides)
    audited = json.loads(said(capsys, "audit", file, "--json"))
    assert (audited["measured"]["kind"], audited["measured"]["rows"]) == (kind, 1)


def test_an_audit_in_words_and_for_machines(lab: Lab, files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [json.loads(line) for line in Path(lab.pairs__jsonl).read_text().splitlines()]
    file = str(write(files / "twice.jsonl", [*rows, rows[0], {**rows[1], "chosen": "one\nHuman: two"}]))
    arguments = ("audit", file, "--model", lab.model, "--against", lab.prompts__jsonl)
    found = json.loads(said(capsys, *arguments, "--json"))
    rules = {finding["rule"]: finding for finding in found["findings"]}
    assert rules["evaluation-overlap"]["severity"] == "fatal"
    assert rules["repeated-rows"]["evidence"]["places"] == [f"{file}:26 (as {file}:1)"]
    assert {"template-markers", "rows-left-out"} <= set(rules)
    assert found["measured"]["lengths"]["context"] == 48
    text = said(capsys, *arguments)
    for finding in found["findings"]:
        assert f"{finding['severity']}: {finding['rule']}\n" in text
        assert finding["remedy"] in text
    assert "twice.jsonl:26 (as twice.jsonl:1)" in text and "context" in text


def test_a_file_with_nothing_to_say(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = write(files / "one.jsonl", [{"prompt": "a", "response": "b."}])
    assert "Nothing was found." in said(capsys, "audit", str(file))


def test_a_reader_who_stops_early_is_no_failure(lab: Lab) -> None:
    command = [sys.executable, "-m", "trueup", "data", "audit", lab.pairs__jsonl]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.close()
        told = process.stderr.read()
    assert (process.returncode, told) == (0, b"")


REFUSED = [
    (("audit", "nowhere.jsonl"), "no such file"),
    (("audit", "prompts"), "columns seen: 'prompt'"),
    (("audit", "wrong"), "field 'chosen' must be text"),
    (("audit", "pairs", "--kind", "judged"), "not judged responses"),
    (("audit", "pairs", "--against", "nowhere.jsonl"), "no such file"),
    (("audit", "pairs", "--model", "nowhere"), "no such model"),
    (("show", "pairs"), "--model"),
    (("show", "pairs", "--model", "model", "--rows", "0"), "--rows"),
    (("show", "pairs", "--model", "model", "--row", "99"), "has 25 rows"),
    (("show", "pairs", "--model", "model", "--row", "25"), "identical chosen and rejected"),
    (("show", "pairs", "--model", "model", "--row", "1", "--rows", "1"), "not allowed with"),
    (("show", "pairs", "--modle", "model", "--model", "model"), "did you mean '--model'?"),
    (("shw", "pairs"), "invalid choice"),
    ((), "show|audit"),
]


@pytest.mark.parametrize(("arguments", "must_say"), REFUSED)
def test_bad_input_is_one_line(
    lab: Lab, files: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], must_say: str
) -> None:
    wrong = write(files / "wrong.jsonl", [{"prompt": "a", "chosen": 1, "rejected": "b"}])
    known = {"pairs": lab.pairs__jsonl, "prompts": lab.prompts__jsonl, "model": lab.model, "wrong": str(wrong)}
    assert must_say in one_line(capsys, ["data", *(known.get(word, word) for word in arguments)])


@pytest.mark.parametrize("part", ["show", "audit"])
def test_each_part_has_help_with_an_example(part: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["data", part, "--help"])
    text = capsys.readouterr().out
    assert end.value.code == 0 and f"\n  trueup data {part} pairs.jsonl" in text and "--json" in text
