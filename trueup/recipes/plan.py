"""What a run is about to do, told before anything slow begins."""

from __future__ import annotations

from trueup.data.encode import EncodedSet
from trueup.data.store import sizes_of
from trueup.preflight.memory import Memory, estimate_memory
from trueup.recipes.bench import Bench
from trueup.train.master import lost_share


def tell_plan(bench: Bench, data: EncodedSet, unit: str) -> None:
    """Say how many steps, tokens and passes over the data the run will make, and about how much memory it needs."""
    optim, steps = bench.config.optim, bench.steps(data)
    examples = steps * optim.batch_size
    sizes = sizes_of(data.trees)
    tokens = examples * float(sizes.mean())
    widest = int(min(max(bench.batching.max_tokens, sizes.max()), optim.batch_size * sizes.max()))
    trained = [p for p in bench.model.parameters() if p.requires_grad]
    size, part = (sum(p.numel() for p in group) for group in (list(bench.model.parameters()), trained))
    share = "all" if size == part else f"{part / size:.1%} of them"
    bench.voice.say(
        f"plan: {steps} {'step' if steps == 1 else 'steps'} of {optim.batch_size} {unit}, "
        f"{examples / len(data):.2f} passes over {len(data)}; "
        f"about {_short(tokens)} tokens; {_short(size)} weights in {bench.config.model.dtype}, {share} trained; "
        f"{_memory(estimate_memory(bench.model, data.trees[0], bench.batching, widest), widest)}"
    )
    if bench.config.model.dtype == "bfloat16" and part == size:
        lost = lost_share(trained, optim.learning_rate)
        bench.voice.say(
            f"bfloat16 would round away {lost:.0%} of updates of {optim.learning_rate:g}: "
            "float32 master weights are kept (4 bytes a weight)"
        )


def _memory(memory: Memory, tokens: int) -> str:
    parts = {
        "weights": memory.weights,
        "gradients": memory.gradients,
        "AdamW": memory.optimizer,
        f"activations of {tokens} tokens": memory.activations,
    }
    unit, size = ("GiB", 2.0**30) if memory.total >= 2**30 / 10 else ("MiB", 2.0**20)
    listed = ", ".join(f"{name} {part / size:.2f}" for name, part in parts.items())
    return f"memory about {memory.total / size:.2f} {unit} ({listed})"


def _short(count: float) -> str:
    for unit, size in (("B", 1e9), ("M", 1e6), ("k", 1e3)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count:.0f}"
