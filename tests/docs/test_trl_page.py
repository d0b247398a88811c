"""The page for users of TRL names what TRL 1.16 and this package have, with the defaults that they have."""

from __future__ import annotations

import ast
import dataclasses
import fnmatch
import inspect
import json
import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import transformers as hf
import yaml
from trl_page import PAGE, TRAINERS, of_trl, quoted, table, under
from trl_peer import QUIET

from trueup.cli.train import SHORT
from trueup.config.load import leaves, load_config, parse_value, validate
from trueup.config.schema import RECIPES, DpoConfig
from trueup.losses.catalog import CATALOG
from trueup.losses.implicit import alpha
from trueup.recipes.anchor import SYNC_MIXUP

trl = pytest.importorskip("trl", reason="TRL is a peer of the tests alone: pip install '.[peers]'")
pytestmark = QUIET

OFFLINE = tuple(name for name in TRAINERS if name not in ("GRPO", "RLOO", "OnlineDPO"))
COMMAND_LINE = ("ModelConfig", "ScriptArguments", "DatasetMixtureConfig")


def defaults(kind: Any) -> dict[str, Any]:
    """What a configuration has after it was made with nothing given; some defaults are decided only then.

    Without ``use_cpu`` none can be made where there is no GPU.
    """
    if not issubclass(kind, hf.TrainingArguments):
        return vars(kind())
    return {**vars(kind(use_cpu=True)), "use_cpu": kind.__dataclass_fields__["use_cpu"].default}


def names_of(*kinds: Any) -> set[str]:
    return {field.name for kind in kinds for field in dataclasses.fields(kind)}


def value(cell: str) -> Any:
    """A default as the page writes it."""
    try:
        return json.loads(cell.strip("*"))
    except json.JSONDecodeError:
        return cell.strip("*")


def plain(default: Any) -> Any:
    """A default as the code has it, in the types of JSON."""
    default = getattr(default, "value", default)
    return list(default) if isinstance(default, tuple) else default


def test_every_row_has_the_cells_of_its_head() -> None:
    """Rows of other widths would be read by none of the tests below."""
    for block in re.findall(r"(?:^\|.*\n)+", PAGE, re.MULTILINE):
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in block.splitlines()}) == 1, block[:80]


def test_settings_named_anywhere_exist() -> None:
    known = {key for schema in RECIPES.values() for key in leaves(schema)}
    sections = "|".join({key.split(".")[0] for key in known})
    named = set(re.findall(rf"(?:`|--)((?:{sections})\.[a-z_.]+[a-z])\b", PAGE))
    assert len(named) > 40 and named <= known, named - known


@dataclasses.dataclass(frozen=True)
class Row:
    """A row of a table of arguments."""

    theirs: str
    their_default: str
    ours: str
    our_default: str
    note: str


def arguments(heading: str) -> list[Row]:
    rows = table(under(heading), 5)
    return [Row(quoted(cells[0])[0], cells[1], "".join(quoted(cells[2])), *cells[3:]) for cells in rows]


SECTIONS: list[tuple[str, str, str]] = [
    *(("### Every trainer", name, TRAINERS[name][1]) for name in OFFLINE),
    *((f"### {name}Config", name, verb) for name, (_, verb) in TRAINERS.items()),
]
"""Heading, trainer, verb."""


@pytest.mark.parametrize(("heading", "name", "verb"), SECTIONS, ids=lambda part: part.strip("# "))
def test_arguments_and_their_defaults(heading: str, name: str, verb: str) -> None:
    theirs, settings = defaults(of_trl(name, "Config")), leaves(RECIPES[verb])
    own = {row.theirs for row in arguments(f"### {name}Config")}
    rows = [row for row in arguments(heading) if heading != "### Every trainer" or row.theirs not in own]
    assert len(rows) > 5
    for row in rows:
        assert value(row.their_default) == plain(theirs[row.theirs]), row
        assert_ours(row, settings)


def test_arguments_of_the_command_line() -> None:
    theirs = {key: default for name in COMMAND_LINE for key, default in defaults(getattr(trl, name)).items()}
    for row in arguments("### Command line"):
        assert value(row.their_default) == plain(theirs[row.theirs]), row
        assert_ours(row, leaves(DpoConfig))


def test_verbs_that_have_adapters() -> None:
    told = re.search(r"Adapters are for ([^;]+);", PAGE)
    have = {verb for verb, schema in RECIPES.items() if "lora.rank" in leaves(schema)}
    assert told and {name.removeprefix("trueup ") for name in quoted(told[1])} == have


def assert_ours(row: Row, settings: Mapping[str, Any]) -> None:
    """The setting exists with this default, and a number that is not TRL's is in bold."""
    if not row.ours:
        assert row.our_default == "–", row
        return
    field = settings[row.ours]
    default = "required" if field.is_required() else plain(field.default)
    assert value(row.our_default) == default, row
    bold, theirs = row.our_default.startswith("**"), value(row.their_default)
    numbers = all(isinstance(found, int | float) for found in (theirs, default))
    assert bold == (theirs != default) if numbers else not (bold and theirs == default), row


@pytest.mark.parametrize("name", TRAINERS)
def test_every_argument_that_trl_adds_is_on_the_page(name: str) -> None:
    kind = of_trl(name, "Config")
    told = {row.theirs for row in [*arguments("### Every trainer"), *arguments(f"### {name}Config")]}
    missing = names_of(kind) - names_of(hf.TrainingArguments) - told
    assert [field for field in missing if not any(fnmatch.fnmatch(field, p) for p in absent())] == []


def test_every_argument_of_the_command_line_is_on_the_page() -> None:
    told = {row.theirs for row in arguments("### Command line")}
    missing = names_of(*(getattr(trl, name) for name in COMMAND_LINE)) - told
    assert missing - set(absent()) == set()


def absent() -> list[str]:
    """Names and patterns of the arguments that have no counterpart."""
    return [name for row in table(under("### Not here"), 2) for name in quoted(row[1])]


def test_what_is_not_here_is_in_trl() -> None:
    kinds = [of_trl(name, "Config") for name in TRAINERS] + [getattr(trl, name) for name in COMMAND_LINE]
    known = names_of(*kinds)
    assert [name for name in absent() if not fnmatch.filter(known, name)] == []


def test_objects_given_to_a_trainer() -> None:
    trainers = [of_trl(name, "Trainer") for name in TRAINERS]
    known = {name for kind in trainers for name in inspect.signature(kind.__init__).parameters} - {"self", "args"}
    settings = {key for schema in RECIPES.values() for key in leaves(schema)}
    rows = table(under("### Objects given to a trainer"), 2)
    assert {name for row in rows for name in quoted(row[0])} <= known
    assert {name for row in rows for name in quoted(row[1]) if "." in name} <= settings
    lora = pytest.importorskip("peft", reason="adapters are PEFT's").LoraConfig()
    assert f"r {lora.r} and lora_alpha {lora.lora_alpha} " in under("### Objects given to a trainer")


def test_losses_whose_defaults_differ() -> None:
    """Of TRL's fifteen, those that here have another beta than its 0.1, or a label smoothing that is not 0."""
    theirs = re.findall(r"`'(\w+)'`", trl.DPOConfig.__dataclass_fields__["loss_type"].metadata["help"])
    assert len(theirs) == 15
    own = {name: (CATALOG[name].default_beta, CATALOG[name].defaults.get("label_smoothing")) for name in theirs}
    shown = {quoted(row[0])[0]: tuple(row[1:3]) for row in table(under("### DPOConfig"), 4)}
    differ = {name: pair for name, pair in own.items() if pair[0] != 0.1 or pair[1]}
    assert shown == {name: tuple("–" if x is None else f"{x:g}" for x in pair) for name, pair in differ.items()}


@pytest.mark.parametrize(
    ("heading", "theirs", "means"),
    [
        ("### DPOConfig", "ref_model_mixup_alpha", SYNC_MIXUP),
        ("### DPOConfig", "f_alpha_divergence_coef", inspect.signature(alpha).parameters["alpha"].default),
        ("### KTOConfig", "beta", CATALOG["kto"].default_beta),
        ("### KTOConfig", "desirable_weight", CATALOG["kto"].defaults["desirable_weight"]),
        ("### KTOConfig", "undesirable_weight", CATALOG["kto"].defaults["undesirable_weight"]),
    ],
)
def test_what_null_means(heading: str, theirs: str, means: float) -> None:
    row = next(row for row in arguments(heading) if row.theirs == theirs)
    assert row.our_default == "null" and f"null is {means:g}" in row.note


def test_defaults_of_cpo_and_simpo() -> None:
    notes = {row.theirs: row.note for row in arguments("### CPOConfig")}
    cpo, simpo = CATALOG["cpo"], CATALOG["simpo"]
    assert f"null is {cpo.default_beta} for `cpo` and {simpo.default_beta:g} for `simpo`" in notes["beta"]
    assert f"`{{sft_weight: {cpo.defaults['sft_weight']:g}}}` of `cpo`, which is the default" in notes["cpo_alpha"]
    assert f"the default is {simpo.defaults['gamma']:g}" in notes["simpo_gamma"]


def code(heading: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", under(heading), re.DOTALL)


def assert_same_run(theirs: Any, ours: DpoConfig) -> None:
    """What both files say of a run, each in its own words."""
    batch = theirs.per_device_train_batch_size * theirs.gradient_accumulation_steps
    assert ours.optim.batch_size == batch
    assert (ours.optim.steps is None) == (theirs.max_steps == -1 and theirs.num_train_epochs == 1)
    assert ours.optim.steps in {None, theirs.max_steps}
    for section, key, name in [
        ("optim", "learning_rate", "learning_rate"),
        ("optim", "schedule", "lr_scheduler_type"),
        ("optim", "warmup", "warmup_steps"),
        ("optim", "weight_decay", "weight_decay"),
        ("optim", "max_grad_norm", "max_grad_norm"),
        ("data", "max_length", "max_length"),
        ("model", "gradient_checkpointing", "gradient_checkpointing"),
        ("run", "eval_every", "eval_steps"),
        ("run", "trackers", "report_to"),
        ("run", "out", "output_dir"),
    ]:
        assert plain(getattr(getattr(ours, section), key)) == plain(getattr(theirs, name)), name
    assert (ours.model.dtype == "bfloat16") == theirs.bf16
    assert (ours.data.validation is not None) == (theirs.eval_strategy == "steps")
    assert [ours.preference.loss] == theirs.loss_type
    assert (ours.preference.beta or CATALOG["sigmoid"].default_beta) == theirs.beta


def test_the_yaml_files_are_valid_and_say_the_same(tmp_path: Path) -> None:
    their_text, our_text = code("## A YAML file moved over", "yaml")
    (tmp_path / "theirs.yaml").write_text(their_text)
    parser = trl.TrlParser((trl.ScriptArguments, trl.DPOConfig, trl.ModelConfig))
    given = ["--config", str(tmp_path / "theirs.yaml"), "--use_cpu"]
    script, theirs, model = parser.parse_args_and_config(given)
    assert set(yaml.safe_load(their_text)) <= names_of(trl.ScriptArguments, trl.DPOConfig, trl.ModelConfig)
    ours = validate(DpoConfig, yaml.safe_load(our_text), "the page")
    assert_same_run(theirs, ours)
    assert (ours.run.seed, ours.run.save_every, ours.run.project) == (theirs.seed, theirs.save_steps, theirs.project)
    assert ours.model.path == model.model_name_or_path
    splits = [f"{script.dataset_name}:{s}" for s in (script.dataset_train_split, script.dataset_test_split)]
    assert [ours.data.path, ours.data.validation] == splits
    assert model.use_peft and model.lora_target_modules == "all-linear" and ours.lora.targets == ()
    lora = (ours.lora.rank, ours.lora.alpha, ours.lora.dropout)
    assert lora == (model.lora_r, model.lora_alpha, model.lora_dropout)


def test_the_script_and_the_command_are_the_same_run() -> None:
    script, command = code("## The same run in ten lines", "python")[0], code("## The same run in ten lines", "bash")[0]
    assert sum(bool(line) for line in script.splitlines()) <= 10
    found = [node for node in ast.walk(ast.parse(script)) if isinstance(node, ast.Call)]
    calls = {node.func.id: node for node in found if isinstance(node.func, ast.Name)}
    given = {word.arg: ast.literal_eval(word.value) for word in calls["DPOConfig"].keywords}
    objects = [word.arg for word in calls["DPOTrainer"].keywords]
    assert set(objects) <= set(inspect.signature(trl.DPOTrainer.__init__).parameters)
    assert_same_run(trl.DPOConfig(use_cpu=True, **given), parsed(command))


def parsed(command: str) -> Any:
    """The configuration that a command line gives."""
    program, verb, *rest = shlex.split(command.replace("\\\n", " "))
    assert program == "trueup"
    schema = RECIPES[verb]
    flags = {SHORT.get(flag[2:], flag[2:]): text for flag, text in zip(rest[::2], rest[1::2], strict=True)}
    values = {key: parse_value(text, leaves(schema)[key].annotation) for key, text in flags.items()}
    return load_config(schema, None, values)
