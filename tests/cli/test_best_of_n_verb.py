"""``trueup eval`` with a reward: parts, the best of several, and the file that ``trueup sft`` trains on."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from refusals import one_line
from tiny_lab import Lab, rows

from trueup.cli.main import main

Evaluate = Callable[..., dict[str, Any]]


@pytest.fixture
def sums(tmp_path: Path) -> str:
    """Prompts with the answer that is wanted."""
    file = tmp_path / "wanted.jsonl"
    told = [{"id": f"p{i}", "prompt": row["prompt"], "answer": row["chosen"]} for i, row in enumerate(rows(5))]
    file.write_text("".join(json.dumps(row) + "\n" for row in told))
    return str(file)


@pytest.fixture
def evaluate(lab: Lab, sums: str, capsys: pytest.CaptureFixture[str]) -> Evaluate:
    def run(*more: str) -> dict[str, Any]:
        arguments = ["eval", lab.model, "--suite", sums, "--threads", "1", "--max-new-tokens", "8", "--json", *more]
        assert main(arguments) == 0
        return json.loads(capsys.readouterr().out)

    return run


WORDS = "[{kind: words, at_most: 3, slope: 0.1}, {kind: exact, weight: 0}]"


def items_of(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "items.jsonl").read_text().splitlines()]


def test_a_sum_of_rules_scores_and_shows_its_parts(evaluate: Evaluate, tmp_path: Path) -> None:
    summary = evaluate("--reward", WORDS, "--draws", "3", "--out", str(tmp_path / "out"))
    items = items_of(tmp_path / "out")
    assert {"proxy", "proxy/words", "proxy/exact"} <= set(items[0])
    assert all(item["proxy"] == pytest.approx(item["proxy/words"]) for item in items), "a weight of 0 only watches"
    by_hand = [max(0.0, 1 - 0.1 * max(0, len(item["response"].split()) - 3)) for item in items]
    assert [item["proxy/words"] for item in items] == pytest.approx(by_hand)
    assert summary["proxy/exact"] == pytest.approx(sum(item["proxy/exact"] for item in items) / len(items))


def test_the_best_of_n_are_picked_from_what_plain_draws_would_be(evaluate: Evaluate, tmp_path: Path) -> None:
    evaluate("--reward", WORDS, "--draws", "12", "--out", str(tmp_path / "all"))
    best = evaluate("--reward", WORDS, "--draws", "3", "--best-of", "4", "--out", str(tmp_path / "best"))
    everything, chosen = items_of(tmp_path / "all"), items_of(tmp_path / "best")
    groups = [everything[start : start + 4] for start in range(0, len(everything), 4)]
    assert [item["proxy"] for item in chosen] == [max(item["proxy"] for item in group) for group in groups]
    assert [item["draw"] for item in chosen] == [0, 1, 2] * 5
    assert "kl/sequence" not in best and best["kl/best_of_n_bound"] == pytest.approx(0.636, abs=1e-3)
    points = best["best_of_n"]
    assert [point["n"] for point in points] == [1, 2, 3, 4]
    assert points[0]["proxy"] == pytest.approx(sum(item["proxy"] for item in everything) / len(everything))
    assert points[0]["proxy"] < points[1]["proxy"] < points[3]["proxy"]
    assert json.loads((tmp_path / "best/summary.json").read_text()) == best


def test_the_winners_are_trained_on(evaluate: Evaluate, lab: Lab, tmp_path: Path) -> None:
    """Rejection sampling in two commands."""
    kept = tmp_path / "kept" / "winners.jsonl"
    evaluate("--reward", WORDS, "--best-of", "4", "--keep", str(kept), "--out", str(tmp_path / "best"))
    found = [json.loads(line) for line in kept.read_text().splitlines()]
    ended = [item for item in items_of(tmp_path / "best") if item["ended"]]
    assert [(row["prompt"], row["response"]) for row in found] == [(i["prompt"], i["response"]) for i in ended]
    assert found
    out = tmp_path / "sft"
    settings = ["--optim.steps", "1", "--run.threads", "1", "--out", str(out)]
    assert main(["sft", "--model", lab.model, "--data", str(kept), *settings]) == 0
    assert (out / "final").is_dir()


def test_poor_winners_are_left_out_and_counted(
    evaluate: Evaluate, lab: Lab, sums: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = tmp_path / "winners.jsonl"
    arguments = ["--reward", WORDS, "--best-of", "2", "--keep", str(kept), "--at-least", "2", "--max-new-tokens", "8"]
    assert main(["eval", lab.model, "--suite", sums, "--threads", "1", *arguments]) == 0
    said = capsys.readouterr()
    assert "0 of 5 responses" in said.err and "with a reward below 2" in said.err
    assert kept.read_text() == ""
    assert "best of n" in said.out


def test_refusals(lab: Lab, sums: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def refused(*more: str) -> str:
        return one_line(capsys, ["eval", lab.model, "--suite", sums, "--threads", "1", *more])

    assert "did you mean 'exact'" in refused("--reward", "exakt")
    assert refused("--reward", "{kind: words, at_mots: 3}").startswith("trueup: --reward: rule 'words'")
    assert "no row of the data has a column 'truth'" in refused("--reward", "{kind: exact, column: truth}")
    assert "every weight is 0" in refused("--reward", "{exact: 0}")
    assert "a --reward to choose by" in refused("--best-of", "4")
    assert "2 draws or more" in refused("--best-of", "1", "--reward", "exact")
    assert "temperature" in refused("--best-of", "4", "--reward", "exact", "--temperature", "0")
    assert "--best-of N" in refused("--reward", "exact", "--keep", str(tmp_path / "kept"))
    assert "--keep FILE" in refused("--reward", "exact", "--best-of", "4", "--at-least", "1")
    assert "kl/best_of_n_bound" in refused("--reward", "exact", "--best-of", "4", "--reference", lab.model)
    (tmp_path / "kept").touch()
    assert "another --keep" in refused("--reward", "exact", "--best-of", "4", "--keep", str(tmp_path / "kept"))
