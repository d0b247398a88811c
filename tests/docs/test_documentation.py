"""What the guides show is what the code has: data shapes, fields of files, evidence, study settings, worlds, rooms."""

from __future__ import annotations

import ast
import importlib.util
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from trueup.config.study import ArmSection, StudyConfig, TuneSection
from trueup.data.batching import Batching
from trueup.data.encode import Bounds, encode_prompts
from trueup.data.read import read_examples, read_pairs, read_prompts
from trueup.data.shapes import EXAMPLE_SHAPES, PAIR_SHAPES, PROMPT_SHAPES
from trueup.data.template import make_encoder
from trueup.evaluate.policy import EvaluationProtocol, evaluate_policy
from trueup.evaluate.suites import load_suite
from trueup.models import hub
from trueup.models.tokenizer import train_bpe
from trueup.rewards.combine import Combination, Part, by_tokens
from trueup.rewards.learned import LearnedReward
from trueup.study.budgets import budgets
from trueup.types import Decoding
from trueup.worlds.registry import MEMBERS, load_world

ROOT = Path(__file__).parents[2]
TINY = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}

SHAPES = {"Examples": EXAMPLE_SHAPES, "Pairs": PAIR_SHAPES, "Prompts": PROMPT_SHAPES[:3]}
READERS = {"Examples": read_examples, "Pairs": read_pairs, "Prompts": read_prompts}


def page(name: str) -> str:
    return (ROOT / f"docs/{name}.md").read_text(encoding="utf-8")


def section(text: str, heading: str) -> str:
    """What stands under a heading, until the next one of its level."""
    level = heading.split(" ", maxsplit=1)[0]
    assert f"\n{heading}" in text, heading
    return re.split(rf"\n{level} ", text.split(f"\n{heading}", 1)[1])[0]


def fields(text: str) -> set[str]:
    """Names in backticks in the first column of the tables."""
    columns = re.findall(r"^\| ([^|]+) \|", text, re.MULTILINE)
    return {name for column in columns for name in re.findall(r"`([^`]+)`", column)}


def load(path: Path, name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def examples() -> Iterator[tuple[str, str, str]]:
    """(family, shape, rows) of every example of the data page."""
    for family in SHAPES:
        text = section(page("data"), f"## {family}")
        for part in text.split("\n### ")[1:]:
            yield family, part.split("\n")[0], re.search(r"```jsonl\n(.*?)```", part, re.DOTALL)[1]  # type: ignore[index]


def test_every_shape_has_an_example_and_every_example_a_shape() -> None:
    shown = [(family, name) for family, name, _ in examples()]
    assert sorted(shown) == sorted((family, shape.name) for family, shapes in SHAPES.items() for shape in shapes)


@pytest.mark.parametrize(("family", "name", "rows"), list(examples()), ids=lambda value: str(value)[:40])
def test_an_example_of_a_shape_is_read_as_that_shape(family: str, name: str, rows: str, tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text(rows, encoding="utf-8")
    loaded = READERS[family](file)
    assert loaded.shape.split(" (")[0] == name
    assert (len(loaded.records), loaded.dropped, loaded.unused) == (2, {}, ())


def reasons() -> set[str]:
    """Every reason to leave a row out that the data room gives, numbers as N."""
    out = {"longer than N tokens", "identical chosen and rejected tokens"}
    for path in (ROOT / "trueup/data").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Dropped":
                out.add(ast.literal_eval(node.args[0]))
    return out


def test_every_reason_to_leave_a_row_out_is_listed() -> None:
    table = section(page("data"), "## What is left out")
    listed = set(re.findall(r"^\| ([^|]+) \|", table, re.MULTILINE)) - {"reason"}
    assert listed == reasons()
    encode = (ROOT / "trueup/data/encode.py").read_text(encoding="utf-8")
    assert 'f"longer than {bounds.limit} tokens"' in encode and '"identical chosen and rejected tokens"' in encode


@pytest.fixture(scope="module")
def items() -> list[dict[str, Any]]:
    """Two items of the errands world, with everything that can be measured."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(hub.PRESETS, "tiny", TINY)  # type: ignore[arg-type]
        tokenizer = hub.wrap_tokenizer(train_bpe(["the cat"], 300))
        torch.manual_seed(0)
        policy, reference = (hub.new_causal("tiny", len(tokenizer), tokenizer, 256).eval() for _ in range(2))
        scorer = hub.new_causal_scorer("tiny", len(tokenizer), tokenizer, 256)
    suite, encoder = load_suite("errands", limit=2), make_encoder(tokenizer)
    encoded = encode_prompts(suite.prompts, encoder, Bounds(256, None, 4))
    batching = Batching("shared", 512, torch.device("cpu"))
    protocol = EvaluationProtocol(Decoding(max_new_tokens=4), 1, 0)
    reward = Combination((Part("model", by_tokens("model", LearnedReward(scorer, batching))),))
    return evaluate_policy(policy, suite, encoded, encoder, batching, protocol, reference, reward)


def test_fields_of_items(items: list[dict[str, Any]]) -> None:
    made = {re.sub("^(gold|proxy)/.*", r"\1/NAME", name) for name in items[0]}
    assert fields(section(page("metrics"), "## Items")) == made


def test_fields_of_budgets(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"num_tokens": 10, "num_examples": 3}\n')
    (tmp_path / "config.yaml").write_text("{}")
    spent = budgets("dpo", tmp_path, parameters=5, reward_pairs=2)
    assert fields(section(page("metrics"), "## Budgets")) == set(spent)
    assert (spent["labels"], spent["prompts"], spent["flops"]) == (2, 3, 10 * 5 * 8)  # as the page says


@pytest.mark.parametrize(
    ("method", "config", "passes"),
    [
        ("sft", {}, 6),
        ("ppo", {"ppo": {"critic": "shared"}, "rollout": {"epochs": 2}}, 8 + 6 * 2),
        ("ppo", {"ppo": {"critic": "separate"}, "rollout": {"epochs": 2}}, 8 + 12 * 2),
        ("grpo", {"rollout": {"epochs": 2}}, 6 + 6 * 2),
    ],
)
def test_passes_of_the_budgets(method: str, config: dict[str, Any], passes: int, tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"num_tokens": 10}\n')
    (tmp_path / "config.yaml").write_text(json.dumps(config))
    assert budgets(method, tmp_path, parameters=5, reward_pairs=0)["flops"] == 10 * 5 * passes


def test_fields_of_a_reward_model_s_card(tmp_path: Path) -> None:
    lab = load(ROOT / "tests/recipes/tiny_lab.py", "laboratory_of_the_card")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(hub.PRESETS, "tiny", lab.SHAPE)
        built = lab.build(tmp_path)
        verb, values = lab.settings(built)["reward-causal"]
        held = {**values["data"], "validation": str(tmp_path / "held.jsonl")}
        lab.run_config(verb, {**values, "data": held}, tmp_path / "run")
    card = json.loads((tmp_path / "run/reward_model.json").read_text())
    text = section(page("metrics"), "## The card")
    assert fields(text) == {*card["train"], *card["heldout"]}
    cut = card["heldout"]["truncation"]
    inner = {*card["heldout"]["accuracy"], *card["heldout"]["reliability"][0], *cut, *set(card) - {"train", "heldout"}}
    assert all(f"`{name}`" in text for name in inner)
    parts = set(re.findall(r"^\| (\w+) \| .*$", text.split("| Part of")[1], re.MULTILINE))
    assert parts == {*cut["cut_off"]} >= {*cut["cut_off"]["cuts"][0]} - {"share", "accuracy"}


def findings() -> Iterator[tuple[str, list[str]]]:
    """(rule, evidence keys written as literals) of every finding in the sources."""
    for path in (ROOT / "trueup").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Finding":
                evidence = node.args[5] if len(node.args) > 5 else None
                keys = evidence.keys if isinstance(evidence, ast.Dict) else []
                yield ast.literal_eval(node.args[0]), [k.value for k in keys if isinstance(k, ast.Constant)]  # type: ignore[misc]


def test_every_rule_says_its_parts_and_its_evidence() -> None:
    known = list(findings())
    assert sum(bool(keys) for _, keys in known) > 8, "evidence was not found in the sources"
    for rule, keys in known:
        text = section(page("diagnoses"), f"## `{rule}`\n")
        assert all(part in text for part in ("**Means.**", "**Fires", "**Threshold.**", "**Evidence.**", "**Remedy.**"))
        assert [key for key in keys if f"`{key}`" not in text] == [], rule


def study_keys() -> set[str]:
    """Dotted settings of a study file, as the page writes them."""
    out = set()
    for name, field in StudyConfig.model_fields.items():
        inner = getattr(field.annotation, "model_fields", None)
        out |= {f"{name}.{key}" for key in inner} if inner else {name}
    out |= {f"arms[].{key}" for key in ArmSection.model_fields} | {f"arms[].tune.{k}" for k in TuneSection.model_fields}
    return out - {"arms", "arms[].tune"}


def test_every_setting_of_a_study_is_on_the_page_with_its_default() -> None:
    text = section(page("study"), "## The file")
    assert fields(text) == study_keys()
    shown = dict(re.findall(r"^\| `([^`]+)` \| ([^|]+) \|", text, re.MULTILINE))
    for name, section_field in StudyConfig.model_fields.items():
        for key, field in getattr(section_field.annotation, "model_fields", {}).items():
            if key != "decoding":
                assert shown[f"{name}.{key}"] == str(field.default)
    assert shown["seeds"] == str(StudyConfig.model_fields["seeds"].default)
    assert shown["smallest_effect"] == str(StudyConfig.model_fields["smallest_effect"].default)


def test_measured_coverage_is_that_of_the_code() -> None:
    told = (ROOT / "trueup/stats/crossed.py").read_text(encoding="utf-8")
    for seeds in (2, 3, 5):
        row = re.search(rf"^\| S = {seeds} \|(.*)\|$", page("study"), re.MULTILINE)
        assert row and re.findall(r"[\d.]+", row[1]) == re.findall(r"[\d.]+", re.search(rf"S {seeds} (.*)", told)[1])  # type: ignore[index]


def test_prompts_and_ideal_answers_of_the_errands_page_are_the_world_s() -> None:
    world = load_world("errands")
    known = {prompt.text: prompt for prompt in world.prompts("test")}
    rows = re.findall(r"^\| (\w+) \| ([^|]+) \| ([^|]+) \|$", section(page("worlds"), "## errands"), re.MULTILINE)
    shown = [row for row in rows if row[1] in known]
    assert {family for family, _, _ in shown} == {prompt.family for prompt in known.values()}
    for family, text, ideal in shown:
        assert (known[text].family, world.ideal(known[text])) == (family, ideal)


def test_parts_of_gold_are_on_the_page() -> None:
    world = load_world("errands")
    prompt = world.prompts("test")[0]
    assert set(world.gold(prompt, "")) <= fields(re.sub(r"^ +", "", section(page("worlds"), "## errands"), flags=re.M))


def test_members_of_a_world_are_on_the_page() -> None:
    listed = fields(section(page("worlds"), "## A world of your own"))
    assert {name.split("(")[0] for name in listed} == set(MEMBERS)


def test_floors_of_the_design_page_are_those_of_the_architecture() -> None:
    rooms = load(ROOT / "tests/architecture/test_architecture.py", "architecture_of_the_page").ROOMS
    rows = re.findall(r"^\| (\d) \| ([^|]+) \|", page("design"), re.MULTILINE)
    shown = {room: int(floor) for floor, names in rows for room in re.findall(r"`(\w+)`", names)}
    assert shown == {name: room.floor for name, room in rooms.items() if not name.startswith("_")}


def test_files_on_the_path_of_a_pair_exist() -> None:
    text = section(page("design"), "## The path of one preference pair")
    names = re.findall(r"`(\w+/\w*)`", text)
    assert len(names) > 10
    assert [n for n in names if not (ROOT / f"trueup/{n}.py").exists() and not (ROOT / f"trueup/{n}").is_dir()] == []
