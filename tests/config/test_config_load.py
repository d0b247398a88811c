"""Settings: what is given is laid over a recipe's own defaults, everything else is refused with the nearest name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trueup.config.load import dump, leaves, load_config, parse_value, validate
from trueup.config.schema import RECIPES, RecipeConfig
from trueup.config.study import StudyConfig
from trueup.errors import UserError
from trueup.study.plan import plan_jobs

CONFIGS = sorted((Path(__file__).parents[2] / "configs").glob("*.yaml"))
NEEDED = {"model.path": "m", "data.path": "d", "run.out": "o", "rollout.reward": "r"}


def minimal(verb: str, **more: Any) -> RecipeConfig:
    """A recipe with what it cannot do without; "." in a key is written "__"."""
    needed = {key: value for key, value in NEEDED.items() if key in leaves(RECIPES[verb])}
    return load_config(RECIPES[verb], None, needed | {key.replace("__", "."): value for key, value in more.items()})


def flat(config: RecipeConfig) -> dict[str, Any]:
    """Dotted key -> value."""
    out = {}
    for key in leaves(type(config)):
        value: Any = config
        for part in key.split("."):
            value = getattr(value, part)
        out[key] = value
    return out


@pytest.mark.parametrize("verb", RECIPES)
def test_giving_one_setting_changes_no_other(verb: str) -> None:
    """Every setting in turn, given the value it has anyway: a section must not fall back to general defaults."""
    base = minimal(verb)
    for key, value in flat(base).items():
        if value is None:
            continue
        plain = list(value) if isinstance(value, tuple) else value
        assert minimal(verb, **{key.replace(".", "__"): plain}) == base, key


def test_the_defaults_that_a_recipe_has_of_its_own() -> None:
    assert minimal("dpo", optim__steps=5).optim.learning_rate == 1e-6
    assert minimal("ppo", optim__batch_size=5).optim.steps == 200
    sampled = minimal("dpo", decoding__max_new_tokens=9, preference__rejected="reference")
    assert isinstance(sampled, RECIPES["dpo"]) and sampled.model_dump()["decoding"]["top_k"] == 50


@pytest.mark.parametrize("section", ["preference", "decoding"])
def test_orpo_has_no_setting_that_only_a_reference_could_use(section: str) -> None:
    assert not [key for key in leaves(RECIPES["orpo"]) if key.startswith(section)]
    assert minimal("orpo").optim.learning_rate == 8e-6


def test_flags_win_over_the_file(tmp_path: Path) -> None:
    file = tmp_path / "dpo.yaml"
    file.write_text(
        "model: {path: m}\ndata: {path: d}\nrun: {out: o}\noptim: {steps: 5, batch_size: 3}\n", encoding="utf-8"
    )
    config = load_config(RECIPES["dpo"], str(file), {"optim.steps": 9, "preference.beta": 0.3})
    assert (config.optim.steps, config.optim.batch_size) == (9, 3)
    assert flat(config)["preference.beta"] == 0.3


@pytest.mark.parametrize("verb", RECIPES)
def test_a_resolved_configuration_reads_back_as_itself(verb: str, tmp_path: Path) -> None:
    config = minimal(verb, optim__learning_rate=3.3e-7)
    (tmp_path / "config.yaml").write_text(dump(config), encoding="utf-8")
    assert load_config(RECIPES[verb], str(tmp_path / "config.yaml"), {}) == config


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"optim": {"lr": 1}}, "unknown key 'optim.lr'"),
        ({"optim": {"learning_rte": 1}}, "did you mean 'optim.learning_rate'?"),
        ({"preferense": {"beta": 1}}, "did you mean 'preference'?"),
        ({"beta": 0.1}, "did you mean 'preference.beta'?"),
        ({"data": {}}, "'data.path' is missing (--data.path VALUE)"),
        ({"preference": {"loss": {"sigmoid": -1}}}, ": preference.loss.sigmoid: Input should be greater than 0"),
        ({"preference": {"options": {"gamma": "x"}}}, ": preference.options.gamma: Input should be a valid number"),
        ({"optim": {"steps": 0}}, "optim.steps: Input should be greater than 0 (got 0)"),
        ({"optim": {"schedule": "square"}}, "optim.schedule"),
        ({"optim": {"warmup": 1.5}}, "optim.warmup"),
        ({"optim": None}, "optim"),
        ({"optim": 3}, "optim"),
        ({"model": {"path": "m", "preset": "seed", "tokenizer": "t"}}, "either model.path"),
        ({"model": {"preset": "seed"}}, "model.preset needs model.tokenizer"),
        ({"decoding": {"top_k": 5}}, "decoding does nothing without preference.rejected: reference"),
        ({"preference": {"divergence_alpha": 0.3}}, "preference.divergence_alpha does nothing"),
        ({"preference": {"divergence": "alpha", "divergence_alpha": 1.0}}, "preference.divergence_alpha"),
        ({"preference": {"sync_mixup": 0.3}}, "preference.sync_mixup does nothing"),
        ({"preference": {"sync_every": 5, "store": "s"}}, "preference.store does nothing with preference.sync_every"),
        ({"preference": {"rejected": "reference", "store": "s"}}, "preference.store does nothing"),
        ({"preference": {"sync_every": 5}, "lora": {"rank": 4}}, "leave out lora.rank"),
        ({"preference": {"loss": {"sigmoid": -1.0}}}, "greater than 0"),
    ],
)
def test_refusals_name_the_key(values: dict[str, Any], says: str) -> None:
    base: dict[str, Any] = {"model": {"path": "m"}, "data": {"path": "d"}, "run": {"out": "o"}}
    with pytest.raises(UserError) as caught:
        validate(RECIPES["dpo"], base | values, "dpo.yaml")
    assert str(caught.value).startswith("dpo.yaml: ") and says in str(caught.value)


def test_all_problems_are_told_at_once() -> None:
    with pytest.raises(UserError) as caught:
        validate(RECIPES["dpo"], {"model": {"path": "m"}, "optim": {"steps": -1, "lr": 1}}, "dpo.yaml")
    for problem in ("optim.steps", "optim.lr", "'data' is missing", "'run' is missing"):
        assert problem in str(caught.value)


def test_a_value_where_a_section_belongs(tmp_path: Path) -> None:
    (tmp_path / "dpo.yaml").write_text("optim: 3\n", encoding="utf-8")
    with pytest.raises(UserError, match="'optim' is a value in the file, not a section"):
        load_config(RECIPES["dpo"], str(tmp_path / "dpo.yaml"), {"optim.steps": 3})


@given(st.text(st.characters(blacklist_categories=("Cs",)), min_size=1))
def test_text_settings_take_a_word_as_it_stands(text: str) -> None:
    """A folder may be called 2024, true or [x]; only null, where a setting may be empty, empties it."""
    fields = leaves(RECIPES["dpo"])
    assert parse_value(text, fields["run.out"].annotation) == text
    assert parse_value(text, fields["model.tokenizer"].annotation) == (None if text == "null" else text)


@pytest.mark.parametrize("text", ["2024", "true", "null", "1e-5", "2024-01-01", "a: b", "[x", "~", ""])
def test_words_that_yaml_would_change(text: str) -> None:
    assert parse_value(text, leaves(RECIPES["dpo"])["run.out"].annotation) == text


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("optim.learning_rate", "1e-5", 1e-5),
        ("optim.learning_rate", "0.5", 0.5),
        ("optim.steps", "null", None),
        ("optim.betas", "[0.8, 0.9]", (0.8, 0.9)),
        ("preference.options", "{gamma: 2}", {"gamma": 2.0}),
        ("preference.options", "{simpo: {gamma: 2}}", {"simpo": {"gamma": 2.0}}),
        ("preference.loss", "{sigmoid: 0.8, sft: 1}", {"sigmoid": 0.8, "sft": 1.0}),
        ("preference.loss", "mpo", "mpo"),
        ("run.resume", "true", True),
        ("model.dtype", "bfloat16", "bfloat16"),
        ("model.tokenizer", "null", None),
    ],
)
def test_other_settings_are_read_as_yaml(key: str, text: str, value: Any) -> None:
    parsed = parse_value(text, leaves(RECIPES["dpo"])[key].annotation)
    assert flat(minimal("dpo", **{key.replace(".", "__"): parsed}))[key] == value


def test_settings_cannot_be_changed_behind_a_runs_back() -> None:
    with pytest.raises(ValueError, match="frozen"):
        minimal("dpo").optim.steps = 3  # type: ignore[misc]


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_file_in_configs_opens_with_its_command_and_is_valid(path: Path, tmp_path: Path) -> None:
    _, program, verb, *words = path.read_text(encoding="utf-8").splitlines()[0].split()
    assert program == "trueup" and f"configs/{path.name}" in words
    if verb == "study":
        plan_jobs(load_config(StudyConfig, str(path), {}), tmp_path)
        return
    load_config(RECIPES[verb], str(path), {})


def test_a_study_keeps_seeds_and_arms_apart() -> None:
    arm = {"name": "a", "label": "A", "method": "dpo", "setting": "tuned"}
    study = {"name": "s", "question": "q", "world": "errands", "arms": [arm]}
    validate(StudyConfig, study, "s.yaml")
    with pytest.raises(UserError, match="seeds must differ"):
        validate(StudyConfig, {**study, "seeds": [0, 1, 0]}, "s.yaml")
    with pytest.raises(UserError, match="arm names must differ"):
        validate(StudyConfig, {**study, "arms": [arm, arm]}, "s.yaml")
    with pytest.raises(UserError, match="arm names must differ"):
        validate(StudyConfig, {**study, "arms": [{**arm, "name": "sft"}]}, "s.yaml")
