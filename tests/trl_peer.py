"""What the tests against TRL share: a tokenizer of whole words, pairs drawn from it, models, and TRL's own trainers.

TRL is imported inside functions: it takes seconds, and only these tests need it.
"""

from __future__ import annotations

import copy
import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as hf
from tokenizers import Tokenizer, models, pre_tokenizers

from trueup.data.trees import Tree

VOCABULARY, EOS = 61, 2
QUIET = [
    pytest.mark.filterwarnings("ignore:.* is deprecated and will be removed in v6:FutureWarning"),
    pytest.mark.filterwarnings("ignore:You are importing from 'trl.experimental'"),
]
"""Marks of a test module: TRL 1.16 uses transformers' old names of activation checkpointing, and CPO and ORPO."""

PLAIN: dict[str, Any] = {
    "use_cpu": True,
    "bf16": False,
    "gradient_checkpointing": False,
    "report_to": "none",
    "save_strategy": "no",
    "disable_tqdm": True,
}
"""Every trainer's settings: on the CPU, in float32, saving and reporting nothing."""

TRAINERS = {
    "dpo": ("trl", "DPOTrainer", "DPOConfig"),
    "kto": ("trl", "KTOTrainer", "KTOConfig"),
    "cpo": ("trl.experimental.cpo", "CPOTrainer", "CPOConfig"),
    "orpo": ("trl.experimental.orpo", "ORPOTrainer", "ORPOConfig"),
    "reward": ("trl", "RewardTrainer", "RewardConfig"),
}


def tokenizer() -> hf.PreTrainedTokenizerFast:
    """Words w3, w4, ... are the ids 3, 4, ...: a text can be written so that it encodes to ids known beforehand."""
    vocabulary = {"<pad>": 0, "<unk>": 1, "</s>": EOS, **{f"w{i}": i for i in range(3, VOCABULARY)}}
    words = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return hf.PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<pad>", eos_token="</s>", unk_token="<unk>")


def draw_pairs(lengths: Sequence[tuple[int, int, int]], seed: int = 0) -> list[Tree]:
    """Random pairs whose prompt, chosen and rejected response have these lengths, terminators not counted."""
    rng = torch.Generator().manual_seed(seed)

    def draw(n: int) -> tuple[int, ...]:
        return tuple(torch.randint(3, VOCABULARY, (n,), generator=rng).tolist())

    return [Tree(draw(p), ((*draw(c), EOS), (*draw(r), EOS))) for p, c, r in lengths]


def as_rows(trees: Sequence[Tree]) -> list[dict[str, str]]:
    """The trees as rows of text in TRL's standard format, to which TRL adds the terminators."""

    def text(ids: Sequence[int]) -> str:
        return "".join(f" w{i}" for i in ids if i != EOS)

    return [{"prompt": text(t.prompt), "chosen": text(t.responses[0]), "rejected": text(t.responses[1])} for t in trees]


def tiny_llama(seed: int = 0) -> Any:
    """A random model with weights large enough that attention is not uniform."""
    torch.manual_seed(seed)
    config = hf.LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        intermediate_size=48,
        max_position_embeddings=64,
        initializer_range=0.08,
        pad_token_id=0,
        bos_token_id=None,
        eos_token_id=EOS,
    )
    return hf.LlamaForCausalLM(config)


def moved(model: Any, size: float, seed: int = 1) -> Any:
    """A copy with noise added to every weight: a policy that differs from its reference."""
    other = copy.deepcopy(model)
    rng = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(size * torch.randn(parameter.shape, generator=rng))
    return other


def trainer(kind: str, model: Any, rows: Sequence[dict[str, Any]], out: Path, **settings: Any) -> Any:
    """Build one of TRL's trainers around ``model`` itself, on the CPU, in float32, saving and reporting nothing.

    Args:
        kind: a key of ``TRAINERS``.
        model: what it trains.
        rows: its data set.
        out: a folder it may create.
        settings: arguments of the trainer (``ref_model``, ``peft_config``), the rest being those of its configuration.
    """
    from datasets import Dataset

    module, trainer_name, config_name = TRAINERS[kind]
    library = importlib.import_module(module)
    given = {name: settings.pop(name) for name in ("ref_model", "peft_config") if name in settings}
    config = getattr(library, config_name)(
        output_dir=str(out),
        **PLAIN,
        max_length=64,
        **settings,
    )
    return getattr(library, trainer_name)(
        model=model, args=config, train_dataset=Dataset.from_list(list(rows)), processing_class=tokenizer(), **given
    )


def batch_of(peer: Any) -> dict[str, torch.Tensor]:
    """The whole data set of a trainer as one padded batch, made by its own collator."""
    return peer.data_collator([peer.train_dataset[i] for i in range(len(peer.train_dataset))])
