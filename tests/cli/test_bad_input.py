"""Bad input: one line on stderr that names the problem, exit code 2, nothing on stdout, nothing on disk."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from refusals import foreign, one_line
from tiny_lab import CONTEXT, Lab, write

from trueup.cli.main import main
from trueup.models import hub

Case = Callable[[Lab, Path], list[str]]
"""(laboratory, empty folder for input files) -> arguments, without ``--out``."""

CASES: dict[str, tuple[Case, tuple[str, ...]]] = {}


def case(*must_say: str) -> Callable[[Case], Case]:
    """Register a case under its name, with what the line must contain."""

    def register(make: Case) -> Case:
        CASES[make.__name__.replace("_", " ").strip()] = (make, must_say)
        return make

    return register


def on_pairs(lab: Lab, *more: str) -> list[str]:
    return ["dpo", "--model", lab.model, "--data", lab.pairs__jsonl, *more]


def on_rollouts(lab: Lab, *more: str) -> list[str]:
    return ["ppo", "--model", lab.model, "--data", lab.prompts__jsonl, "--rollout.decoding.max_new_tokens", "4", *more]


def on_judged(data: str, lab: Lab) -> list[str]:
    return ["kto", "--model", lab.model, "--data", data]


def pairs_file(folder: Path, lines: list[Any], name: str = "pairs.jsonl") -> str:
    return str(write(folder / name, lines))


PAIR = {"prompt": "sort: red blue", "chosen": "blue red", "rejected": "red"}


# data


@case("nowhere.jsonl", "no such file")
def missing_data_file(lab: Lab, files: Path) -> list[str]:
    return ["sft", "--model", lab.model, "--data", str(files / "nowhere.jsonl")]


@case("nowhere.jsonl", "no such file")
def missing_validation_file(lab: Lab, files: Path) -> list[str]:
    return on_pairs(lab, "--data.validation", str(files / "nowhere.jsonl"))


@case("empty.jsonl", "empty")
def empty_file(lab: Lab, files: Path) -> list[str]:
    (files / "empty.jsonl").write_text("", encoding="utf-8")
    return ["reward", "--model", lab.model, "--data", str(files / "empty.jsonl")]


@case("no rows")
def file_of_blank_lines(lab: Lab, files: Path) -> list[str]:
    (files / "blank.jsonl").write_text("\n\n", encoding="utf-8")
    return ["dpo", "--model", lab.model, "--data", str(files / "blank.jsonl")]


@case("broken.jsonl:3", "malformed JSON")
def malformed_line(lab: Lab, files: Path) -> list[str]:
    lines = [json.dumps(PAIR), json.dumps(PAIR | {"prompt": "b"}), '{"prompt": "c", "chosen": ']
    (files / "broken.jsonl").write_text("\n".join(lines), encoding="utf-8")
    return ["dpo", "--model", lab.model, "--data", str(files / "broken.jsonl")]


@case("chosn", "did you mean 'chosen'")
def misspelt_field(lab: Lab, files: Path) -> list[str]:
    row = {"prompt": "a", "chosn": "b", "rejected": "c"}
    return ["dpo", "--model", lab.model, "--data", pairs_file(files, [row])]


@case("pairs.jsonl:2", "'rejected'", "missing")
def field_missing_in_a_later_row(lab: Lab, files: Path) -> list[str]:
    data = pairs_file(files, [PAIR, {"prompt": "a", "chosen": "b"}])
    return ["reward", "--model", lab.model, "--data", data]


@case("pairs.jsonl:1", "'chosen'", "a number")
def field_of_another_kind(lab: Lab, files: Path) -> list[str]:
    return ["dpo", "--model", lab.model, "--data", pairs_file(files, [PAIR | {"chosen": 3}])]


@case("preference pairs", "trueup dpo")
def pairs_given_to_sft(lab: Lab, files: Path) -> list[str]:
    return ["sft", "--model", lab.model, "--data", lab.pairs__jsonl]


@case("pairs.xyz", ".jsonl")
def unknown_kind_of_file(lab: Lab, files: Path) -> list[str]:
    return ["dpo", "--model", lab.model, "--data", pairs_file(files, [PAIR], "pairs.xyz")]


@case("pairs.jsonl:2", "'rejected'", "empty")
def empty_response(lab: Lab, files: Path) -> list[str]:
    return ["dpo", "--model", lab.model, "--data", pairs_file(files, [PAIR, PAIR | {"rejected": "  "}])]


@case("no row can be used", "identical")
def nothing_but_identical_pairs(lab: Lab, files: Path) -> list[str]:
    return ["dpo", "--model", lab.model, "--data", pairs_file(files, [PAIR | {"rejected": PAIR["chosen"]}])]


@case("pairs.jsonl:2", f"context of {CONTEXT}", "--data.max_length")
def prompt_longer_than_the_context(lab: Lab, files: Path) -> list[str]:
    data = pairs_file(files, [PAIR, PAIR | {"prompt": "sort " + "red " * CONTEXT}])
    return ["dpo", "--model", lab.model, "--data", data]


@case("prompts.jsonl:1", "context")
def no_room_for_a_rollout(lab: Lab, files: Path) -> list[str]:
    online = on_rollouts(lab, "--reward-model", lab.scorer)
    return [*online, "--rollout.decoding.max_new_tokens", str(CONTEXT - 2)]


@case("max_new_tokens", f"context of {CONTEXT}")
def rollouts_longer_than_the_context(lab: Lab, files: Path) -> list[str]:
    return [*on_rollouts(lab, "--reward-model", lab.scorer), "--rollout.decoding.max_new_tokens", str(CONTEXT)]


@case("no row is left", "data.max_length")
def every_row_too_long_for_the_limit(lab: Lab, files: Path) -> list[str]:
    return on_pairs(lab, "--data.max_length", "5")


# settings


@case("run.yaml", "optim.learning_rat'", "did you mean 'optim.learning_rate'")
def unknown_key_in_a_file(lab: Lab, files: Path) -> list[str]:
    (files / "run.yaml").write_text("optim:\n  learning_rat: 1\n", encoding="utf-8")
    return on_pairs(lab, "--config", str(files / "run.yaml"))


@case("run.yaml", "'preferences'", "did you mean 'preference")
def unknown_section_in_a_file(lab: Lab, files: Path) -> list[str]:
    (files / "run.yaml").write_text("preferences: {beta: 0.2}\n", encoding="utf-8")
    return on_pairs(lab, "--config", str(files / "run.yaml"))


@case("--preference.bta", "did you mean '--preference.beta'")
def unknown_flag(lab: Lab, files: Path) -> list[str]:
    return on_pairs(lab, "--preference.bta", "0.2")


@case("'extra'")
def stray_word(lab: Lab, files: Path) -> list[str]:
    return on_pairs(lab, "extra")


@case("--config", "expected one argument")
def flag_without_its_value(lab: Lab, files: Path) -> list[str]:
    return on_pairs(lab, "--config")


@case("run.yaml", "line 3", "not valid YAML")
def yaml_syntax_error(lab: Lab, files: Path) -> list[str]:
    (files / "run.yaml").write_text("optim:\n  steps: [1, 2\nrun: x\n", encoding="utf-8")
    return on_pairs(lab, "--config", str(files / "run.yaml"))


@case("run.yaml", "not valid YAML")
def yaml_of_strange_bytes(lab: Lab, files: Path) -> list[str]:
    (files / "run.yaml").write_bytes(b"optim: \x00\n")
    return on_pairs(lab, "--config", str(files / "run.yaml"))


@case("run.yaml", "found list")
def yaml_that_is_a_list(lab: Lab, files: Path) -> list[str]:
    (files / "run.yaml").write_text("- optim\n", encoding="utf-8")
    return on_pairs(lab, "--config", str(files / "run.yaml"))


@case("run.yaml", "no such file")
def missing_config_file(lab: Lab, files: Path) -> list[str]:
    return on_pairs(lab, "--config", str(files / "run.yaml"))


@case("optim.learning_rate", "greater than 0", "-0.1")
def negative_learning_rate(lab: Lab, files: Path) -> list[str]:
    return on_pairs(lab, "--optim.learning_rate", "-0.1")


@case("optim.learning_rate", "fast")
def learning_rate_in_words(lab: Lab, files: Path) -> list[str]:
    return on_pairs(lab, "--optim.learning_rate", "fast")


@case("optim.betas", "less than 1")
def impossible_betas(lab: Lab, files: Path) -> list[str]:
    return on_pairs(lab, "--optim.betas", "[0.9, 1.5]")


@case("'sigmoyd'", "did you mean 'sigmoid'")
def unknown_loss(lab: Lab, files: Path) -> list[str]:
    return on_pairs(lab, "--preference.loss", "sigmoyd")


@case("gama")
def unknown_option_of_a_loss(lab: Lab, files: Path) -> list[str]:
    return on_pairs(lab, "--preference.options", "{gama: 1.0}")


@case("'beta' does nothing for loss 'sft'")
def beta_for_a_loss_without_one(lab: Lab, files: Path) -> list[str]:
    return on_pairs(lab, "--preference.loss", "sft", "--preference.beta", "0.1")


@case("'label_smoothing' does nothing for loss 'hinge'")
def label_smoothing_for_a_loss_without_one(lab: Lab, files: Path) -> list[str]:
    return on_pairs(lab, "--preference.loss", "hinge", "--preference.label_smoothing", "0")


@case("preference.reference does nothing for simpo", "no reference")
def reference_for_a_loss_without_one(lab: Lab, files: Path) -> list[str]:
    return on_pairs(lab, "--preference.loss", "simpo", "--preference.reference", lab.model)


@case("preference.rejected: reference does nothing for 1 simpo + 1 sft")
def samples_of_a_reference_that_is_not_used(lab: Lab, files: Path) -> list[str]:
    return on_pairs(lab, "--preference.loss", "{simpo: 1, sft: 1}", "--preference.rejected", "reference")


@case("preference.store does nothing for orpo")
def store_for_a_loss_without_a_reference(lab: Lab, files: Path) -> list[str]:
    return on_pairs(lab, "--preference.loss", "orpo", "--preference.store", str(files))


@case("preference.sync_every does nothing for cpo")
def moving_reference_for_a_loss_without_one(lab: Lab, files: Path) -> list[str]:
    return on_pairs(lab, "--preference.loss", "cpo", "--preference.sync_every", "3")


@case("divergence 'js' is not valid for loss 'ipo'", "sigmoid")
def divergence_for_a_loss_that_has_none(lab: Lab, files: Path) -> list[str]:
    return on_pairs(lab, "--preference.loss", "ipo", "--preference.divergence", "js")


@case("label_smoothing is 0", "exo_pair")
def no_smoothing_for_a_loss_that_divides_by_it(lab: Lab, files: Path) -> list[str]:
    return on_pairs(lab, "--preference.loss", "exo_pair", "--preference.label_smoothing", "0")


@case("--preference.store", "did you mean")
def reference_settings_given_to_orpo(lab: Lab, files: Path) -> list[str]:
    return ["orpo", "--model", lab.model, "--data", lab.pairs__jsonl, "--preference.store", str(files)]


@case("'desirable_weight' does nothing for loss 'bco'")
def weights_for_bco(lab: Lab, files: Path) -> list[str]:
    return [*on_judged(lab.judged__jsonl, lab), "--kto.loss", "bco", "--kto.desirable_weight", "1.5"]


@case("preference pairs", "trueup dpo")
def pairs_given_to_kto(lab: Lab, files: Path) -> list[str]:
    return on_judged(lab.pairs__jsonl, lab)


@case("judged responses", "trueup kto")
def judged_responses_given_to_dpo(lab: Lab, files: Path) -> list[str]:
    return ["dpo", "--model", lab.model, "--data", lab.judged__jsonl]


@case("judged.jsonl: row 1", "all rows have the same prompt", "--kto.loss bco")
def kto_on_one_prompt(lab: Lab, files: Path) -> list[str]:
    row = {"prompt": "sort: red blue", "response": "blue red", "label": True}
    return on_judged(pairs_file(files, [row, row | {"response": "red", "label": False}], "judged.jsonl"), lab)


@case("run.device", "gpu")
def unknown_device(lab: Lab, files: Path) -> list[str]:
    return on_pairs(lab, "--run.device", "gpu")


@case("rollout.decoding.temperature")
def greedy_rollouts(lab: Lab, files: Path) -> list[str]:
    return on_rollouts(lab, "--reward-model", lab.scorer, "--rollout.decoding.temperature", "0")


@case("data", "missing")
def no_data(lab: Lab, files: Path) -> list[str]:
    return ["dpo", "--model", lab.model]


@case("rollout", "missing")
def no_reward_model(lab: Lab, files: Path) -> list[str]:
    return on_rollouts(lab)


# models


@case("nowhere", "no such model")
def missing_model(lab: Lab, files: Path) -> list[str]:
    return ["dpo", "--model", str(files / "nowhere"), "--data", lab.pairs__jsonl]


@case("no tokenizer_config.json")
def model_without_a_tokenizer(lab: Lab, files: Path) -> list[str]:
    shutil.copytree(lab.model, files / "bare", ignore=shutil.ignore_patterns("tokenizer*"))
    return ["sft", "--model", str(files / "bare"), "--data", lab.examples__jsonl]


@case("no config.json")
def tokenizer_without_a_model(lab: Lab, files: Path) -> list[str]:
    return ["sft", "--model", lab.tokenizer, "--data", lab.examples__jsonl]


@case("'sed'", "did you mean 'seed'")
def unknown_preset(lab: Lab, files: Path) -> list[str]:
    return ["sft", "--model.preset", "sed", "--model.tokenizer", lab.tokenizer, "--data", lab.examples__jsonl]


@case("model.path", "model.preset")
def neither_model_nor_preset(lab: Lab, files: Path) -> list[str]:
    return ["sft", "--model.tokenizer", lab.tokenizer, "--data", lab.examples__jsonl]


@case("rollout.reward", "another vocabulary")
def reward_model_of_another_vocabulary(lab: Lab, files: Path) -> list[str]:
    return on_rollouts(lab, "--reward-model", foreign(files, hub.new_causal_scorer))


@case("rollout.reward", "not a reward model", "trueup reward")
def language_model_as_reward_model(lab: Lab, files: Path) -> list[str]:
    return on_rollouts(lab, "--reward-model", lab.model)


@case("nowhere", "no such model")
def missing_reward_model(lab: Lab, files: Path) -> list[str]:
    return on_rollouts(lab, "--reward-model", str(files / "nowhere"))


@case("reference", "another vocabulary")
def reference_of_another_vocabulary(lab: Lab, files: Path) -> list[str]:
    return on_pairs(lab, "--preference.reference", foreign(files, hub.new_causal))


@pytest.mark.parametrize("name", CASES)
def test_bad_input_gets_one_line_and_leaves_nothing(
    lab: Lab, files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    make, must_say = CASES[name]
    arguments = [*make(lab, files), "--out", str(tmp_path / "out"), "--run.threads", "1"]
    line = one_line(capsys, arguments)
    for words in must_say:
        assert words in line
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("out", "words"), [("file/below", "is a file"), ("file", "is a file"), ("/proc/trueup-out", "cannot be written")]
)
def test_a_folder_that_cannot_be_written(
    lab: Lab, tmp_path: Path, capsys: pytest.CaptureFixture[str], out: str, words: str
) -> None:
    (tmp_path / "file").write_text("precious", encoding="utf-8")
    line = one_line(capsys, on_pairs(lab, "--out", str(tmp_path / out)))
    assert words in line and out in line
    assert (tmp_path / "file").read_text(encoding="utf-8") == "precious"


def test_an_existing_folder_is_not_touched(lab: Lab, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "precious.txt").write_text("mine", encoding="utf-8")
    line = one_line(capsys, on_pairs(lab, "--out", str(tmp_path / "run")))
    assert "exists" in line and "--resume" in line
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["precious.txt"]


@pytest.mark.parametrize("there", [False, True])
def test_nothing_to_resume(lab: Lab, tmp_path: Path, capsys: pytest.CaptureFixture[str], there: bool) -> None:
    if there:
        (tmp_path / "run").mkdir()
    assert "nothing to resume" in one_line(capsys, on_pairs(lab, "--out", str(tmp_path / "run"), "--resume"))
    assert (tmp_path / "run").exists() == there


def test_a_finished_run_is_not_trained_again(lab: Lab, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without this, resuming a finished run would begin at step 0 and write over it."""
    arguments = on_pairs(lab, "--out", str(tmp_path / "run"), "--optim.steps", "2", "--run.threads", "1")
    assert main(arguments) == 0
    before = (tmp_path / "run" / "metrics.jsonl").read_bytes()
    assert "the run is finished" in one_line(capsys, [*arguments, "--resume"])
    assert (tmp_path / "run" / "metrics.jsonl").read_bytes() == before
