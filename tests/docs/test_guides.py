"""Documents against the code: links resolve, configurations are complete, examples run, no page names a machine."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from trueup.config.load import leaves, load_config, read_yaml
from trueup.config.schema import RECIPES
from trueup.config.study import StudyConfig
from trueup.study.plan import plan_jobs
from trueup.worlds.protocol import SPLITS
from trueup.worlds.registry import load_world

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_resolve_and_no_machine_is_named(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    targets = re.findall(r"\]\(([^)\s#]+)", text)
    broken = [t for t in targets if not t.startswith("http") and not (page.parent / t).exists()]
    assert broken == []
    assert not re.search(r"(^|[\s`(])/(tmp|root|work|home|opt)/", text)


@pytest.mark.parametrize("verb", RECIPES)
def test_every_setting_is_in_the_recipe_s_yaml(verb: str) -> None:
    file = ROOT / f"configs/{verb}.yaml"
    config = load_config(RECIPES[verb], str(file), {"data.path": "x", "model.path": "y"})
    assert file.read_text().startswith(f"# trueup {verb} --config configs/{verb}.yaml")
    written = set(_dotted(read_yaml(str(file))))
    assert {key for key in leaves(RECIPES[verb]) if key not in written} == set()
    bare = {"model": {"path": "y"}, "data": {"path": "x"}, "run": {"out": config.run.out}}
    if "rollout" in RECIPES[verb].model_fields:
        bare["rollout"] = {"reward": "runs/reward/final"}
    assert config == RECIPES[verb].model_validate(bare)  # what the file shows are the defaults


def _dotted(values: dict, prefix: str = "") -> list[str]:
    out = []
    for key, value in values.items():
        deeper = isinstance(value, dict) and value
        out += _dotted(value, f"{prefix}{key}.") if deeper else [prefix + key]
    return out


def test_study_files_plan(tmp_path: Path) -> None:
    page = (ROOT / "docs/study.md").read_text()
    (tmp_path / "page.yaml").write_text(re.search(r"```yaml\n(.*?)```", page, re.DOTALL)[1])  # type: ignore[index]
    for file in (ROOT / "configs/study-demo.yaml", tmp_path / "page.yaml"):
        study = load_config(StudyConfig, str(file), {})
        jobs = plan_jobs(study, tmp_path / "out")
        seen: set[str] = set()
        for job in jobs:
            assert seen.issuperset(job.needs)
            seen.add(job.id)
        assert len(seen) == len(jobs)


@pytest.mark.parametrize("example", ["log_probabilities.py", "compare_two_models.py", "reward_file.py"])
def test_examples_run(example: str) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, str(ROOT / "examples" / example)], capture_output=True, text=True, check=False, env=environment
    )
    assert done.returncode == 0, done.stderr


def test_the_example_for_trl_runs() -> None:
    """It needs TRL, ends well once and is stopped once."""
    pytest.importorskip("trl")
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    example = [sys.executable, "-W", "ignore", str(ROOT / "examples/trl_callback.py")]
    done = subprocess.run(example, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    page = (ROOT / "docs/trl-callback.md").read_text()
    for line in ("trueup: nothing found in 30 steps.", "stopped before the first step by what was found fatal"):
        assert line in done.stdout and line in page


def test_the_example_world_is_a_world() -> None:
    world = load_world(f"{ROOT / 'examples/own_world.py'}:Shout")
    texts = [prompt.text for split in SPLITS for prompt in world.prompts(split)]
    assert len(texts) == len(set(texts)) > 400
    prompt = world.prompts("test")[0]
    best = sum(world.gold(prompt, world.ideal(prompt)).values())
    assert best == 2.5 > sum(world.gold(prompt, prompt.content["word"]).values())
    assert world.annotator(prompt, world.ideal(prompt) + "!") != best
