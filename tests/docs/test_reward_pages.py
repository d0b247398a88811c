"""The pages on reward models and PPO name files, settings, rules and defaults that there are."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from trueup.config.load import leaves
from trueup.config.schema import PpoConfig, RewardConfig

ROOT = Path(__file__).parents[2]
PAGES = ("ppo", "reward-model")


def page(name: str) -> str:
    return (ROOT / f"docs/{name}.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", PAGES)
def test_files_that_are_named_exist(name: str) -> None:
    files = set(re.findall(r"`((?:tests/|configs/)?[\w/]+\.(?:py|yaml))`", page(name)))
    places = [ROOT / file if file.startswith(("tests/", "configs/")) else ROOT / "trueup" / file for file in files]
    assert [place for place in places if not place.is_file()] == []
    assert name != "ppo" or len(files) > 15


@pytest.mark.parametrize("name", PAGES)
def test_rules_that_are_named_have_a_section(name: str) -> None:
    known = set(re.findall(r"^## `([\w-]+)`", page("diagnoses"), re.MULTILINE))
    told = set(re.findall(r"`((?:rm|reward-model|critic|dropout)-[\w-]+)`", page(name)))
    assert told and told <= known


@pytest.mark.parametrize("name", PAGES)
def test_settings_that_are_named_exist(name: str) -> None:
    known = {*leaves(PpoConfig), *leaves(RewardConfig)}
    told = set(re.findall(r"(?:`|--)((?:reward|lora|model|data|optim|rollout|ppo|run)\.\w+)", page(name)))
    assert told and told <= known


def test_every_setting_of_reward_models_is_explained() -> None:
    told = page("reward-model")
    assert all(
        f"`{key}" in told for key in leaves(RewardConfig) if key.startswith("reward.") and key != "reward.backbone"
    )
    assert "`reward.backbone`" in told


DEFAULTS = {
    "ppo.clip": "PPO's clip | 0.2 | the same",
    "ppo.kl_coef": "β 0.05, temperature 1 |",
    "rollout.prompts_per_rollout": "64 prompts",
    "rollout.epochs": "`epochs` 2",
    "rollout.mini_batches": "`mini_batches` 2",
    "rollout.missing_eos_penalty": "`missing_eos_penalty`, 1.0",
    "optim.learning_rate": "rate 3e-6, 64",
    "optim.warmup": "first tenth of the steps",
}


def test_defaults_are_as_the_page_says() -> None:
    found = {key: leaves(PpoConfig)[key].default for key in DEFAULTS if not key.startswith("optim")}
    optim = PpoConfig.model_fields["optim"].default
    assert found == {
        "ppo.clip": 0.2,
        "ppo.kl_coef": 0.05,
        "rollout.prompts_per_rollout": 64,
        "rollout.epochs": 2,
        "rollout.mini_batches": 2,
        "rollout.missing_eos_penalty": 1.0,
    }
    assert (optim.learning_rate, optim.warmup, optim.schedule) == (3e-6, 0.1, "linear")
    assert [text for text in DEFAULTS.values() if text not in page("ppo")] == []
