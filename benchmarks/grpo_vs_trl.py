"""One GRPO step, ours against TRL's: seconds of rollout and update, arithmetic, peak memory, and equal gradients.

python benchmarks/grpo_vs_trl.py --model SmolLM2-135M-Instruct.Q4_1.gguf --data DATA_FOLDER

Both sample 8 responses to each of the same prompts and pay a response for the number of its different tokens. In
every turn ours and each setting of TRL roll out in one process, one after the other; then all make their gradients on
the responses that ours sampled. Ours is what ``trueup grpo`` does: sampling, scoring under the reference, credit,
forward and backward. At a KL weight of 0 neither side has a reference (ours with ``grpo.kl_share: 0``; its default
scores a quarter of the prompts, for the metrics). TRL's is its own
``_generate_and_score_completions`` and ``training_step``; it needs no log-probabilities of before the update here, and
computes none. Everything is float32 on one thread. Times are CPU seconds; those of clipping and AdamW, the same code
for both, are measured once and added to each update. Large products of ours are oneDNN's where the processor asks for
it (``trueup/ops/products``), and TRL's are PyTorch's; ours is also raced with PyTorch's. Peak memory is that of a fresh
process which makes one whole step.

Cases: ``alpaca`` (4 instructions, every response of 64 tokens on both sides), ``alpaca natural`` (responses end where
they end, at most 128 tokens), ``hh`` (alpaca, with dialogues for prompts, which are longer), ``alpaca reference``
(alpaca, with a KL term of weight 0.04 in both), ``tiny`` (16 laboratory prompts, 2 layers of 128, 40 tokens).

TRL's settings, all with bf16=False (its default would make gradients incomparable):
- default: 8 responses at a time, activations computed again in backward;
- whole rollout at once: gradient_checkpointing=False, per_device_train_batch_size=32 (tiny: 128);
- eight at a time: gradient_checkpointing=False, per_device_train_batch_size=8, accumulated;
- one at a time: gradient_checkpointing=False, per_device_train_batch_size=1, accumulated.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from grpo_contenders import LOSSES, Case, Ours, Peer, Setting, Spans, finish_seconds
from harness import (
    counted,
    cpu_seconds,
    gradient_difference,
    high_water_mark,
    measure_apart,
    memory,
    other_results,
    spread,
    timed,
    write_result,
)
from rich.console import Console
from rich.table import Table

from trueup.data.encode import Bounds, encode_prompts
from trueup.data.read import read_prompts
from trueup.data.template import Encoder, make_encoder
from trueup.data.trees import Tree
from trueup.models import hub
from trueup.models.tokenizer import train_bpe
from trueup.ops import products
from trueup.runtime.folder import now

NAME = "grpo_vs_trl"

CASES = (
    Case("alpaca", "alpaca_en_demo.json", 4, 64, True, 0.0, 1024),
    Case("alpaca natural", "alpaca_en_demo.json", 4, 128, False, 0.0, 1024),
    Case("hh", "hh_harmless_base_test.jsonl.gz", 4, 64, True, 0.0, 1024, most=8),
    Case("alpaca reference", "alpaca_en_demo.json", 4, 64, True, 0.04, 1024),
    Case("tiny", None, 16, 40, True, 0.0, 2048),
)

PEERS = (
    Setting("default", {"gradient_checkpointing": True}, 8),
    Setting("whole rollout at once", {"gradient_checkpointing": False}, None),
    Setting("eight at a time", {"gradient_checkpointing": False}, 8),
    Setting("one at a time", {"gradient_checkpointing": False}, 1),
)

OURS = {"ours": False, "ours checkpointing": True}
"""Our settings whose memory is measured: are activations computed again in backward? The first is the one raced."""

PHASES = ("generation", "rollout", "update", "step")


def main() -> None:
    """Run the cases that were asked for, print the table, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="model folder or .gguf")
    parser.add_argument("--data", required=True, help="folder with the data files")
    parser.add_argument("--cases", nargs="*", default=[case.name for case in CASES])
    parser.add_argument("--turns", type=int, default=3, help="rollouts with their update, made by every contender")
    parser.add_argument("--peers", nargs="*", default=[setting.name for setting in PEERS], help="TRL's settings")
    parser.add_argument("--without-memory", action="store_true", help="race only")
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    if args.measure:
        print(json.dumps(_one_peak(args)))
        return
    results = other_results(NAME, "cpu", args.cases, args.peers)
    for case in (case for case in CASES if case.name in args.cases):
        results += _run_case(case, args)
        print(write_result(NAME, "cpu", results))
    _print(results)


def _run_case(case: Case, args: argparse.Namespace) -> list[dict[str, Any]]:
    """Measure everyone's memory alone, then race ours against every setting of TRL."""
    settings = [setting for setting in PEERS if setting.name in args.peers and setting.fits(case)]
    measured = [] if args.without_memory else [*OURS, *(setting.name for setting in settings)]
    peaks = {who: _peak(args, case.name, who) for who in measured}
    start = _load(case, args)
    ours = Ours(case, start.model, start.prompts, start.encoder)
    peers = [Peer(setting, case, start.model, start.encoder.tokenizer) for setting in settings]
    del start
    facts = {
        "date": now(),
        "model": "SmolLM2-135M-Instruct" if case.data else "2x128",
        "data": case.name,
        "prompts": case.prompts,
        "group_size": case.group_size,
        "max_new_tokens": case.cap,
        "fixed_length": case.fixed,
        "beta": case.beta,
        "turns": args.turns,
    }
    raced = _race(ours, peers, args.turns)
    return [{**facts, **_told(peer), **row, **_peaks(peaks, peer)} for peer, row in zip(peers, raced, strict=True)]


def _told(peer: Peer) -> dict[str, Any]:
    settings = {**peer.setting.options, "per_device_train_batch_size": peer.at_once}
    return {
        "peer": f"trl {version('trl')}, {peer.setting.name}",
        "settings": {**settings, "gradient_accumulation_steps": peer.parts},
    }


def _peaks(peaks: dict[str, float], peer: Peer) -> dict[str, Any]:
    """Memory of ours and the peer, and of ours with activations computed again."""
    lean = {"ours": peaks["ours checkpointing"], **{k: v for k, v in peaks.items() if k not in OURS}} if peaks else {}
    checkpointing = memory(lean, peer.setting.name)
    return {
        **memory(peaks, peer.setting.name),
        "ratio_peak_memory_checkpointing": checkpointing["ratio_peak_memory"],
        "peak_gib_checkpointing": checkpointing["peak_gib"],
    }


@dataclass(frozen=True)
class _Turn:
    """Of one contender: CPU seconds by phase, and tokens sampled."""

    seconds: Mapping[str, float]
    tokens: int


def _race(ours: Ours, peers: Sequence[Peer], turns: int) -> list[dict[str, Any]]:
    """Take turns; a first round, which is not timed, counts the arithmetic and compares the gradients."""
    compared = _compare(ours, peers)
    tail = finish_seconds(ours)
    ours.model.zero_grad()
    for contender in (ours, *peers):
        contender.spans.take()
    taken = [_turn(ours, peers, turn, tail) for turn in range(1, turns + 1)]
    by_torch, mine, *theirs = [list(column) for column in zip(*taken, strict=True)]
    return [
        {**_row(mine, column), **_by_torch(by_torch, column), "finish_seconds": tail, **row}
        for column, row in zip(theirs, compared, strict=True)
    ]


def _by_torch(ours: Sequence[_Turn], peer: Sequence[_Turn]) -> dict[str, Any]:
    """The ratio of whole steps where our products, too, are PyTorch's."""
    row = _row(ours, peer)
    return {"ratio_steps_per_second_by_torch": row["ratio_steps_per_second"], "products": products.library()}


def _compare(ours: Ours, peers: Sequence[Peer]) -> list[dict[str, Any]]:
    """Arithmetic of a whole step of each; their losses and gradients on the responses that ours sampled."""
    work, flops = counted(partial(ours.rollout, 0))
    trees, given = ours.drawn, [peer.given(ours.drawn) for peer in peers]
    theirs = [counted(partial(peer.rollout, trees))[1] for peer in peers]
    gradients: list[dict[str, float]] = [{} for _ in peers]
    losses: list[dict[str, float]] = [{} for _ in peers]
    for name in LOSSES:
        ours.model.zero_grad()
        mine, own = counted(partial(ours.gradients, work, name))
        flops += own if name == LOSSES[0] else 0
        for i, peer in enumerate(peers):
            other, count = counted(partial(peer.gradients, given[i], name))
            theirs[i] += count if name == LOSSES[0] else 0
            gradients[i][name], losses[i][name] = gradient_difference(ours.model, peer.model), abs(mine - other)
            peer.model.zero_grad()
    return [
        {
            "ratio_flops": flops / count,
            "max_relative_gradient_difference": max(gradient.values()),
            "relative_gradient_difference": gradient,
            "loss_difference": loss,
        }
        for count, gradient, loss in zip(theirs, gradients, losses, strict=True)
    ]


def _turn(ours: Ours, peers: Sequence[Peer], turn: int, tail: float) -> list[_Turn]:
    """One step of everyone; ``tail`` is clipping and AdamW. Responses are everyone's own, updates are all on ours."""
    with patch.object(products, "library", lambda: "torch"):
        by_torch = _own_turn(ours, turn, tail)
    out = [by_torch, _own_turn(ours, turn, tail)]
    trees = ours.drawn
    for peer in peers:
        rollout, tokens = cpu_seconds(partial(peer.rollout, trees)), peer.drawn
        update = cpu_seconds(partial(peer.gradients, peer.given(trees)))
        out.append(_whole(rollout, peer.spans, update + tail, tokens))
        peer.model.zero_grad()
    told = [f"{taken.seconds['rollout']:.2f} + {taken.seconds['update']:.2f} s" for taken in out]
    names = ", ".join(["ours by torch", "ours", *(p.setting.name for p in peers)])
    print(f"turn {turn}, {names}: {'; '.join(told)}", file=sys.stderr)
    return out


def _own_turn(ours: Ours, turn: int, tail: float) -> _Turn:
    work, rollout = timed(partial(ours.rollout, turn))
    update = cpu_seconds(partial(ours.gradients, work))
    ours.model.zero_grad()
    return _whole(rollout, ours.spans, update + tail, sum(len(r) for tree in ours.drawn for r in tree.responses))


def _whole(rollout: float, spans: Spans, update: float, tokens: int) -> _Turn:
    return _Turn({**spans.take(), "rollout": rollout, "update": update, "step": rollout + update}, tokens)


def _row(ours: Sequence[_Turn], peer: Sequence[_Turn]) -> dict[str, Any]:
    """How many times as fast ours was, by phase, and the seconds (medians) and tokens behind it."""
    ratios = {
        f"ratio_{phase}s_per_second": spread(
            [b.seconds[phase] / a.seconds[phase] for a, b in zip(ours, peer, strict=True)]
        )
        for phase in PHASES
    }
    return {
        **ratios,
        "seconds": {"ours": _medians(ours), "peer": _medians(peer)},
        "sampled_tokens": {"ours": sum(t.tokens for t in ours), "peer": sum(t.tokens for t in peer)},
    }


def _medians(turns: Sequence[_Turn]) -> dict[str, float]:
    return {name: statistics.median(turn.seconds[name] for turn in turns) for name in turns[0].seconds}


@dataclass(frozen=True)
class _Start:
    """What a case starts from."""

    model: Any
    prompts: Sequence[Tree]
    encoder: Encoder


def _load(case: Case, args: argparse.Namespace) -> _Start:
    if case.data is None:
        return _laboratory()
    model, encoder = hub.load_causal(args.model), make_encoder(hub.load_tokenizer(args.model))
    bounds = Bounds(hub.context_length(model), extra=case.cap)
    prompts = encode_prompts(read_prompts(Path(args.data) / case.data, limit=400), encoder, bounds)
    return _Start(model, list(prompts.trees), encoder)


def _laboratory() -> _Start:
    """A random model and prompts of the laboratory's lengths, 12 to 40 tokens."""
    torch.manual_seed(0)
    tokenizer = hub.wrap_tokenizer(train_bpe(["a b c d e f g"], 300))
    rng = torch.Generator().manual_seed(0)
    lengths = torch.randint(12, 41, (128,), generator=rng).tolist()
    prompts = [Tree(tuple(torch.randint(3, 500, (n,), generator=rng).tolist()), ()) for n in lengths]
    return _Start(hub.new_causal("seed", 512, tokenizer), prompts, make_encoder(tokenizer))


def _peak(args: argparse.Namespace, case: str, who: str) -> float:
    """Peak resident memory of a fresh process that makes one whole step, bytes."""
    given = ["--model", args.model, "--data", args.data, "--measure", json.dumps([case, who])]
    return measure_apart(__file__, *given)["peak"]


def _one_peak(args: argparse.Namespace) -> dict[str, float]:
    name, who = json.loads(args.measure)
    case = next(case for case in CASES if case.name == name)
    start = _load(case, args)
    if who in OURS:
        ours = Ours(case, start.model, start.prompts, start.encoder, checkpointing=OURS[who])
        del start
        ours.step(ours.rollout(0))
    else:
        setting = next(setting for setting in PEERS if setting.name == who)
        peer = Peer(setting, case, start.model, start.encoder.tokenizer)
        # Any responses do: TRL takes the prompts, repeated.
        prompts = [Tree(tree.prompt, ((),) * case.group_size) for tree in start.prompts[: case.prompts]]
        del start
        peer.step(peer.rollout(prompts))
    return {"peak": high_water_mark()}


def _print(results: Sequence[Mapping[str, Any]]) -> None:
    heads = ("step by torch", "x FLOPs", "memory", "gradient")
    table = Table("case", "peer", *(f"x {phase}s/s" for phase in PHASES), *heads)
    for row in results:
        ratios = [row[f"ratio_{phase}s_per_second"] for phase in PHASES]
        table.add_row(
            row["data"],
            row["peer"],
            *(f"{r['median']:.2f} ({r['min']:.2f}..{r['max']:.2f})" for r in ratios),
            _short((row.get("ratio_steps_per_second_by_torch") or {}).get("median")),
            f"{row['ratio_flops']:.2f}",
            _short(row["ratio_peak_memory"]),
            f"{row['max_relative_gradient_difference']:.1e}",
        )
    Console(width=160).print(table)


def _short(ratio: float | None) -> str:
    """A ratio, or a dash where it was not measured."""
    return "-" if ratio is None else f"{ratio:.2f}"


if __name__ == "__main__":
    main()
