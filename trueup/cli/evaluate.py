"""``trueup eval``: the evaluation suite on one model."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trueup.cli.console import open_console
from trueup.cli.evaluate_display import show
from trueup.cli.reward_flag import naming_the_flag, reward_setting
from trueup.errors import UserError
from trueup.runtime.folder import check_writable

if TYPE_CHECKING:
    from trueup.evaluate.suites import Suite


def add_arguments(parser: argparse.ArgumentParser, verb: str) -> None:
    """Declare the arguments of the verb."""
    parser.epilog = (
        "examples:\n  trueup eval runs/dpo --suite sixteen\n"
        "  trueup eval path/to/model --suite prompts.jsonl --draws 4 --reference path/to/start --out runs/eval\n"
        "  trueup eval path/to/model --suite sums.jsonl --reward number --best-of 8 --keep winners.jsonl"
    )
    parser.add_argument(
        "model", metavar="RUN_OR_MODEL", help="run folder (its final/ is taken), model folder or .gguf file"
    )
    parser.add_argument(
        "--suite", required=True, metavar="NAME_OR_FILE", help="sixteen, a world's name, or a file of prompts"
    )
    parser.add_argument("--world", metavar="NAME", help="world that scores the prompts of a file")
    parser.add_argument(
        "--reference", metavar="MODEL", help="measure the exact KL to this model (default: a run's own start)"
    )
    parser.add_argument(
        *("--reward", "--reward-model"),
        dest="reward",
        metavar="REWARD",
        help="score the responses with a reward model, a rule, file.py:function, a judge or a sum (docs/rewards.md)",
    )
    parser.add_argument("--draws", type=int, default=1, metavar="K", help="responses a prompt (default: 1)")
    parser.add_argument(
        "--best-of", type=int, metavar="N", help="every response is the best by --reward of N (docs/online.md)"
    )
    parser.add_argument("--keep", metavar="FILE", help="write the best of N as rows that 'trueup sft' trains on")
    parser.add_argument("--at-least", type=float, metavar="R", help="keep none whose reward is below R")
    parser.add_argument("--limit", type=int, metavar="N", help="only the first N prompts")
    parser.add_argument("--temperature", type=float, default=1.0, metavar="T", help="0 = greedy (default: 1)")
    parser.add_argument(
        "--top-k", type=int, default=0, metavar="K", help="keep the K most probable tokens (default: all)"
    )
    parser.add_argument("--top-p", type=float, default=1.0, metavar="P", help="nucleus (default: 1, all)")
    parser.add_argument(
        "--max-new-tokens",
        type=int,
        metavar="N",
        help="cap of a response, its terminator included (default: half the model's context, at most 128)",
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="seed of the sampling (default: 0)")
    parser.add_argument("--threads", type=int, metavar="N", help="CPU threads")
    parser.add_argument("--out", metavar="DIR", help="write items.jsonl and summary.json there")
    parser.add_argument("--json", action="store_true", help="print the summary as JSON on stdout")


def execute(verb: str, args: argparse.Namespace) -> int:
    """Sample, score, print; keep every item with ``--out``."""
    _check(args)
    out, keep = _free(args.out, "--out"), _free(args.keep, "--keep")
    suite, items = _answered(args)
    from trueup.evaluate.policy import summarise

    points: list[dict[str, float]] = []
    if args.best_of is not None:
        from trueup.evaluate.best_of_n import curve, winners

        points = curve(items, args.draws * args.best_of, args.best_of)
        items = winners(items, args.best_of)
    summary = summarise(items)
    if points:
        summary["kl/best_of_n_bound"] = points[-1]["kl/best_of_n_bound"]
    told = {**summary, "best_of_n": points} if points else summary
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        _write_rows(out / "items.jsonl", items)
        (out / "summary.json").write_text(json.dumps(told, indent=1), encoding="utf-8")
    if keep is not None:
        _keep(keep, items, suite, args.at_least)
    if args.json:
        print(json.dumps(told))
    else:
        show(summary, items, points)
    return 0


def _check(args: argparse.Namespace) -> None:
    """Refuse numbers that mean nothing, and arguments that would do nothing."""
    counts = [n for n in (args.draws, args.limit, args.max_new_tokens) if n is not None]
    if min(counts) < 1 or args.temperature < 0 or not 0 < args.top_p <= 1 or args.top_k < 0:
        raise UserError(
            "--draws, --limit and --max-new-tokens must be positive, --temperature and --top-k not negative, "
            "--top-p in (0, 1]"
        )
    if args.best_of is None:
        if args.keep is not None or args.at_least is not None:
            raise UserError("--keep and --at-least are about the best of several: give --best-of N and --reward")
        return
    if args.best_of < 2 or args.reward is None or args.temperature == 0:
        raise UserError("--best-of: needs 2 draws or more, a --reward to choose by, and a --temperature above 0")
    if args.reference is not None:
        raise UserError(
            "--reference: it is the KL of the model itself, not of the best of N, which the summary bounds "
            "(kl/best_of_n_bound); leave out one of --reference and --best-of"
        )
    if args.at_least is not None and args.keep is None:
        raise UserError("--at-least: says what is kept; give --keep FILE")


def _answered(args: argparse.Namespace) -> tuple[Suite, list[dict[str, Any]]]:
    """The suite, and an item for each prompt and draw."""
    from trueup.data.batching import Batching
    from trueup.data.template import make_encoder
    from trueup.evaluate.policy import EvaluationProtocol, evaluate_policy
    from trueup.evaluate.prompts import MOST, default_cap, encode_with_room
    from trueup.evaluate.suites import load_suite
    from trueup.models import hub
    from trueup.recipes.reference import require_same_vocabulary
    from trueup.recipes.rewards import Scored, load_rewards
    from trueup.runtime.device import prepare
    from trueup.types import Decoding
    from trueup.worlds.registry import load_world

    setting = reward_setting(args.reward) if args.reward is not None else None
    suite = load_suite(args.suite, load_world(args.world) if args.world else None, args.limit)
    device = prepare("auto", args.threads)
    path, start = _locate(args.model)
    tokenizer = hub.load_tokenizer(path)
    encoder, policy = make_encoder(tokenizer), hub.load_causal(path).to(device)
    # The KL that a reference would measure is that of the model, not of the best of N.
    anchor = None if args.best_of is not None else args.reference or start
    reference = hub.load_causal(anchor).to(device).eval() if anchor else None
    if anchor:
        require_same_vocabulary("--reference", anchor, tokenizer)
    batching = Batching("shared", 4096, device)
    context = hub.context_length(policy)
    cap = args.max_new_tokens or default_cap(context)
    remedy = "Shorten the prompt, or give a smaller --max-new-tokens"
    encoded = encode_with_room(suite.prompts, encoder, context, cap, remedy)
    reward = None
    if args.reward is not None:
        with naming_the_flag():
            reward = load_rewards(setting, Scored(tokenizer, "float32", device), suite.prompts, encoded)
    if args.max_new_tokens is None:
        told = f"responses of at most {cap} tokens: half the model's context, at most {MOST}; see --max-new-tokens"
        open_console(stderr=True).print(told, soft_wrap=True)
    decoding = Decoding(args.temperature, args.top_k, args.top_p, cap)
    protocol = EvaluationProtocol(decoding, args.draws * (args.best_of or 1), args.seed)
    judge = None if reward is None else reward.reward(batching)
    with naming_the_flag():
        return suite, evaluate_policy(policy, suite, encoded, encoder, batching, protocol, reference, judge)


def _locate(path: str) -> tuple[str, str | None]:
    """The model of a run folder and the model it started from; any other path is taken as it is."""
    run = Path(path)
    if not (run / "final").is_dir():
        return path, None
    import yaml

    config = yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8")) if (run / "config.yaml").exists() else {}
    start = config.get("model", {}).get("path")
    return str(run / "final"), start if start and Path(start).exists() else None


def _free(path: str | None, flag: str) -> Path | None:
    if path is None:
        return None
    if Path(path).exists():
        raise UserError(f"{path}: exists; give another {flag}")
    return check_writable(path)


def _write_rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def _keep(path: Path, items: Sequence[Mapping[str, Any]], suite: Suite, at_least: float | None) -> None:
    """Write the best of N as data, and say what was left out."""
    from trueup.evaluate.best_of_n import training_rows

    rows = training_rows(items, suite.prompts.records, at_least)
    cut = sum(not item["ended"] for item in items)
    poor = len(items) - cut - len(rows)
    below = "" if at_least is None else f", {poor} with a reward below {at_least:g}"
    path.parent.mkdir(parents=True, exist_ok=True)
    _write_rows(path, rows)
    told = f"{path}: {len(rows)} of {len(items)} responses; left out: {cut} cut off{below}"
    open_console(stderr=True).print(told, soft_wrap=True)
