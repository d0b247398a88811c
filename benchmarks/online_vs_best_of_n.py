"""Do PPO, GRPO and RLOO reach what best-of-n reaches at the same distance from the start?

    python benchmarks/online_vs_best_of_n.py STUDY [--seed 0] [--out DIR]

STUDY is the folder of a finished default study (``make demo``): its SFT model is the start, its reward model the
proxy. Best-of-n picks, among n of 64 draws a prompt, the one with the highest reward; its gold score is estimated
without bias for every n, and its KL from the start is at most log n - (n - 1)/n. Each method is trained on the same
reward with a few weights of the KL penalty; its gold score and its exact KL are measured on the same 300 test prompts,
and it is compared with best-of-n at that KL (interpolated between neighbouring n). Where the bound overstates the KL
of best-of-n, the comparison is too kind to the methods; beyond the KL of n = 64 it is with n = 64.

Two rewards: ``gold`` (the true score itself, as a function in a file: can the method optimise?) and ``proxy`` (the
reward model: what is left of it in gold?). Writes results/online_vs_best_of_n.cpu.json.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from harness import write_result
from rich.console import Console
from rich.table import Table
from scipy import stats
from verbs import read_rows, trueup

from trueup.stats.best_of_n import best_of_n, kl_bound

DRAWS, PROMPTS, CAP, STEPS = 64, 300, 48, 150
COEFFICIENTS: Mapping[str, Sequence[float]] = {"ppo": (0.05, 0.2), "grpo": (0.2, 1.0), "rloo": (0.05, 0.2)}
GROUP: Mapping[str, Mapping[str, Any]] = {
    "ppo": {"rollout__prompts_per_rollout": 96, "ppo__critic": "shared", "ppo__vf_coef": 1.0},
    "grpo": {"rollout__prompts_per_rollout": 12, "grpo__group_size": 8},
    "rloo": {"rollout__prompts_per_rollout": 12, "rloo__group_size": 8},
}
"""96 responses a rollout for each."""

GOLD = '''
"""The true score of the errands world as a reward."""

from trueup.worlds.protocol import WorldPrompt
from trueup.worlds.registry import load_world

WORLD = load_world("errands")


def gold(prompts, responses, ended, id, family, template, content):
    asked = zip(id, prompts, family, template, content, strict=True)
    rows = [WorldPrompt(i, text, kind, wording, "preference", said) for i, text, kind, wording, said in asked]
    return [sum(WORLD.gold(r, text, end).values()) for r, text, end in zip(rows, responses, ended, strict=True)]
'''


def main() -> None:
    """Sample, train, compare."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("study", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = args.out or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        cases = _cases(args.study, args.seed, folder)
    _show(cases)
    print(write_result("online_vs_best_of_n", "cpu", cases))


def _cases(study: Path, seed: int, folder: Path) -> list[dict[str, Any]]:
    start, scorer = (study / stage / f"seed-{seed}" / "final" for stage in ("sft", "reward"))
    (folder / "gold.py").write_text(GOLD, encoding="utf-8")
    asked = {"suite": study / "world" / "test.jsonl", "world": "errands", "limit": PROMPTS, "max_new_tokens": CAP}
    drawn = folder / "draws"
    if not drawn.exists():
        trueup("eval", start, **asked, draws=DRAWS, reward=scorer, out=drawn)
    items = read_rows(drawn / "items.jsonl")
    columns = {name: np.array([item[name] for item in items]).reshape(-1, DRAWS) for name in ("gold", "proxy")}
    cases = []
    for reward, spec in (("gold", f"{folder / 'gold.py'}:gold"), ("proxy", str(scorer))):
        curve = best_of_n(columns[reward], columns["gold"])  # [prompts, n]
        cases.append({"reward": reward, "method": "best_of_n", "points": _points(curve)})
        for method, coefficients in COEFFICIENTS.items():
            for coefficient in coefficients:
                out = folder / f"{reward}-{method}-{coefficient}"
                if not (out / "final").exists():
                    _train(method, start, study / "world" / "preference.jsonl", spec, coefficient, seed, out)
                summary, scores = _evaluate(out, start, asked)
                matched = _match(curve, scores, summary["kl/sequence"])
                cases.append({"reward": reward, "method": method, "kl_coef": coefficient, **matched})
                print(cases[-1], file=sys.stderr)
    return cases


def _train(method: str, start: Path, data: Path, reward: str, coefficient: float, seed: int, out: Path) -> None:
    settings = {
        "optim__steps": STEPS,
        "optim__learning_rate": 6e-4,
        "optim__schedule": "linear",
        "optim__micro_batch_tokens": 2048,
        "rollout__decoding.max_new_tokens": CAP,
        "rollout__missing_eos_penalty": 0,
        "run__on_fatal": "continue",
        "run__threads": 1,
        f"{method}__kl_coef": coefficient,
        **GROUP[method],
    }
    trueup(method, model=start, data=data, reward=reward, out=out, seed=seed, **settings)


def _evaluate(run: Path, start: Path, asked: Mapping[str, Any]) -> tuple[Mapping[str, float], np.ndarray]:
    """The summary, and the mean gold score of each prompt's draws."""
    out = run / "evaluation"
    if not out.exists():
        trueup("eval", run, **asked, draws=4, reference=start, out=out)
    items = read_rows(out / "items.jsonl")
    kl = float(np.mean([item["kl"] for item in items]))
    return {"kl/sequence": kl}, np.array([item["gold"] for item in items]).reshape(-1, 4).mean(axis=1)


def _match(curve: np.ndarray, scores: np.ndarray, kl: float) -> dict[str, Any]:
    """Gold of the policy over gold of best-of-n at its KL, with an interval over prompts."""
    bounds = np.array([kl_bound(n) for n in range(1, curve.shape[1] + 1)])
    at = np.array([np.interp(kl, bounds, row) for row in curve])
    found = stats.bootstrap((scores, at), _ratio, paired=True, n_resamples=4000, rng=np.random.default_rng(0))
    start = curve[:, 0].mean()
    gain = (scores.mean() - start) / (at.mean() - start) if at.mean() != start else float("nan")
    return {
        "kl_nats_per_response": kl,
        "n_at_this_kl": float(np.interp(kl, bounds, np.arange(1, len(bounds) + 1))),
        "gold": float(scores.mean()),
        "gold_of_best_of_n": float(at.mean()),
        "ratio": {"estimate": float(_ratio(scores, at)), **found.confidence_interval._asdict()},
        "share_of_the_gain": float(gain),
    }


def _ratio(own: np.ndarray, best: np.ndarray, axis: int = -1) -> np.ndarray:
    return own.mean(axis=axis) / best.mean(axis=axis)


def _points(curve: np.ndarray) -> list[dict[str, float]]:
    means = curve.mean(axis=0)
    return [{"n": n, "kl_bound": kl_bound(n), "gold": float(means[n - 1])} for n in (1, 2, 4, 8, 16, 32, 64)]


def _show(cases: Sequence[Mapping[str, Any]]) -> None:
    table = Table("reward", "method", "kl_coef", "KL, nats", "gold", "best of n there", "ratio", "share of the gain")
    for case in cases:
        if case["method"] == "best_of_n":
            told = ", ".join(f"{p['n']}: {p['gold']:.2f}" for p in case["points"])
            table.add_row(case["reward"], "best of n", "", "", told, "", "", "")
            continue
        ratio = "{estimate:.2f} [{low:.2f}, {high:.2f}]".format(**case["ratio"])
        numbers = [f"{case[name]:.2f}" for name in ("kl_nats_per_response", "gold", "gold_of_best_of_n")]
        table.add_row(
            case["reward"], case["method"], f"{case['kl_coef']}", *numbers, ratio, f"{case['share_of_the_gain']:.0%}"
        )
    Console(width=150).print(table)


if __name__ == "__main__":
    main()
