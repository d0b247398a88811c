"""GRPO paid by rules, by a user's function and by weighted sums: whole runs, their metrics, and their resumption."""

from __future__ import annotations

import json
import re
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
from tiny_lab import Lab, Listener, journal, outcome, rows, run_config, settings, write

from trueup.errors import Interrupted, RunError, UserError

MINE = """
import re
CALLS = []
def vowels(prompts, responses, ended, answer):
    CALLS.append((prompts, responses, ended, answer))
    return [len(re.findall("[aeiou]", text)) / 10 for text in responses]
def half(completions, chosen=None, **columns):
    return [None if number % 2 else 1.0 for number in range(len(completions))]
def broken(responses):
    return [1 / 0 for text in responses]
"""


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Prompts with the answer beside them, and functions."""
    (tmp_path / "mine.py").write_text(MINE, encoding="utf-8")
    lines = [{"prompt": row["prompt"], "answer": row["chosen"]} for row in rows(24)]
    write(tmp_path / "asked.jsonl", lines)
    return tmp_path


def values(lab: Lab, data: Path, reward: Any, verb: str = "grpo") -> dict[str, Any]:
    _, base = settings(lab)["grpo" if verb == "grpo" else "ppo-shared"]
    return {**base, "data": {"path": str(data / "asked.jsonl")}, "rollout": {**base["rollout"], "reward": reward}}


def run(lab: Lab, data: Path, reward: Any, name: str = "run", verb: str = "grpo", **run: Any) -> list[dict[str, Any]]:
    run_config(verb, values(lab, data, reward, verb), data / name, **run)
    return rollouts(data / name)


def rollouts(out: Path) -> list[dict[str, Any]]:
    """The lines of the steps that a rollout was sampled for."""
    found = [line for line in journal(out / "metrics.jsonl") if "reward" in line]
    assert len(found) == 2
    return found


@pytest.mark.parametrize("verb", ["grpo", "ppo"])
def test_a_rule_pays(lab: Lab, data: Path, verb: str) -> None:
    for line in run(lab, data, {"kind": "words", "at_most": 2, "slope": 0.25}, verb=verb):
        assert 0 < line["reward"] <= 1 and line["rewards/words/mean"] == line["reward"]
        assert line["rewards/words/std"] == line["reward_std"] > 0


def test_a_function_gets_the_rollout_s_own_rows(lab: Lab, data: Path) -> None:
    lines = run(lab, data, f"{data / 'mine.py'}:vowels", preflight="off")  # a rehearsal would call it too
    (module,) = [m for name, m in sys.modules.items() if name.startswith("trueup_reward_") and str(data) in m.__file__]
    assert len(module.CALLS) == 2
    known = {row["prompt"]: row["chosen"] for row in rows(24)}
    for line, (prompts, responses, ended, answer) in zip(lines, module.CALLS, strict=True):
        assert len(prompts) == len(responses) == 18 and len(set(prompts)) == 6
        assert all(prompts[3 * n : 3 * n + 3] == [prompts[3 * n]] * 3 for n in range(6))
        assert answer == [known[prompt] for prompt in prompts]
        assert line["completions/clipped_ratio"] == pytest.approx(1 - sum(ended) / 18)
        assert line["reward"] == pytest.approx(sum(len(re.findall("[aeiou]", text)) for text in responses) / 180)


def test_parts_of_a_sum_stay_visible(lab: Lab, data: Path) -> None:
    parts = [
        {"kind": "exact", "weight": 2.0},
        {"path": f"{data / 'mine.py'}:vowels", "weight": -0.5, "name": "a.e.i"},
        {"kind": "length", "at_most": 3, "weight": 0.0},
        {"path": lab.scorer, "weight": 0.1},
        {"path": f"{data / 'mine.py'}:half"},
    ]
    for line in run(lab, data, parts):
        mean = {name: line[f"rewards/{name}/mean"] for name in ("exact", "a.e.i", "length", "model", "half")}
        assert all(f"rewards/{name}/std" in line for name in mean)
        assert line["rewards/half/applicable"] == 0.5 and mean["half"] == 1.0 and line["rewards/half/std"] == 0.0
        assert "rewards/exact/applicable" not in line
        total = 2 * mean["exact"] - 0.5 * mean["a.e.i"] + 0.1 * mean["model"] + 0.5 * mean["half"]
        assert line["reward"] == pytest.approx(total, abs=1e-6)


def test_a_lone_model_has_no_parts_and_a_weighted_one_has(lab: Lab, data: Path) -> None:
    plain, double = run(lab, data, lab.scorer, "plain"), run(lab, data, {lab.scorer: 2}, "double")
    assert not any(name.startswith("rewards/") for name in plain[0])
    assert double[0]["rewards/model/mean"] == plain[0]["reward"] == double[0]["reward"] / 2


def test_a_resumed_run_ends_as_if_nothing_had_happened(lab: Lab, data: Path) -> None:
    reward = {"exact": 1.0, f"{data / 'mine.py'}:vowels": 0.5}
    run(lab, data, reward, "whole")
    for step in (2, 4, 5):
        name = f"stopped-{step}"
        act = lambda now, step=step: signal.raise_signal(signal.SIGINT) if now == step else None  # noqa: E731
        with pytest.raises(Interrupted):
            run(lab, data, reward, name, voice=Listener(act))
        run(lab, data, reward, name, resume=True)
        assert outcome(data / name) == outcome(data / "whole")
    # The same settings with another text in the file are another run.
    with pytest.raises(Interrupted):
        run(lab, data, reward, "changed", voice=Listener(lambda now: signal.raise_signal(signal.SIGINT)))
    (data / "mine.py").write_text(MINE.replace("/ 10", "/ 20"), encoding="utf-8")
    with pytest.raises(UserError, match="'reward' is not what the run was started with"):
        run(lab, data, reward, "changed", resume=True)


def test_training_follows_the_reward(lab: Lab, data: Path) -> None:
    """Paid for short answers, a policy writes shorter ones than its copy that is paid for long ones."""
    ends = {}
    for name, bounds in {"short": {"at_most": 1}, "long": {"at_least": 6}}.items():
        given = values(lab, data, {"kind": "length", "slope": 0.2, **bounds})
        given["rollout"] = {**given["rollout"], "missing_eos_penalty": 0.0, "prompts_per_rollout": 12}
        given["optim"] = {**given["optim"], "steps": 40, "learning_rate": 1e-2}
        run_config("grpo", given, data / name, on_fatal="continue")  # it goes as far from the start as it can
        lines = [json.loads(line) for line in (data / name / "metrics.jsonl").read_text().splitlines()]
        ends[name] = [line["completions/mean_length"] for line in lines if "reward" in line][-1]
    assert ends["short"] < ends["long"] - 1


@pytest.mark.parametrize(
    ("reward", "said"),
    [
        ("exat", "'exat' is no folder and no rule; did you mean 'exact'?"),
        ({"kind": "exact", "column": "anser"}, "no row of the data has a column 'anser'; did you mean 'answer'?"),
        ("FILE", "name the function in it: .*mine.py:FUNCTION"),
        ("FILE:vowel", "has no function 'vowel'; did you mean 'vowels'?"),
        (["exact", {"kind": "exact", "normalise": False}], "two parts are called 'exact'; give each a name"),
        ({"judge": "http://localhost:1/v1", "model": "m", "prompt": "{response} {anser}"}, "judge: no row .*'anser'"),
        ([{"kind": "regex"}], "rule 'regex': needs the option 'pattern'"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_written(lab: Lab, data: Path, reward: Any, said: str) -> None:
    reward = reward.replace("FILE", str(data / "mine.py")) if isinstance(reward, str) else reward
    with pytest.raises(UserError, match=said):
        run(lab, data, reward)
    assert not (data / "run").exists()


def test_a_function_that_fails_stops_the_run_and_is_named(lab: Lab, data: Path) -> None:
    with pytest.raises(
        RunError, match=r"mine.py:broken: ZeroDivisionError: .*\(mine.py:10\); response .*asked.jsonl:\d+"
    ):
        run(lab, data, f"{data / 'mine.py'}:broken")
