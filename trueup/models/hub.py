"""Loading and saving models and tokenizers: the only module that imports transformers."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

# Read when huggingface_hub is first imported: nothing here may reach for a network.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")

import safetensors.torch
import torch
import transformers
from safetensors import SafetensorError
from tokenizers import Tokenizer
from transformers import (
    AttentionInterface,
    AttentionMaskInterface,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertConfig,
    LlamaConfig,
    PreTrainedTokenizerFast,
)
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from trueup.errors import UserError, nearest
from trueup.models import adapters
from trueup.models.attention import BY_TREE, by_tree
from trueup.models.linear import quicken
from trueup.models.scalar_head import HEADS, widen_head
from trueup.models.tokenizer import BOS, CHAT_TEMPLATE, EOS, PAD

transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()

AttentionInterface.register(BY_TREE, by_tree(sdpa_attention_forward))
AttentionMaskInterface.register(BY_TREE, sdpa_mask)

PRESETS: Mapping[str, Mapping[str, int]] = {
    "seed": {"hidden_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 352},
    "small": {"hidden_size": 256, "num_hidden_layers": 4, "num_attention_heads": 4, "intermediate_size": 704},
}
"""Model shapes for training from scratch; ``seed`` is the shape of the write-up behind this project."""

DTYPES: Mapping[str, torch.dtype] = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def wrap_tokenizer(tokenizer: Tokenizer) -> Any:
    """Return a transformers tokenizer for a tokenizer of ``models.tokenizer``, chat template included."""
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=BOS, eos_token=EOS, pad_token=PAD, chat_template=CHAT_TEMPLATE
    )


def load_tokenizer(path: str) -> Any:
    """Load the tokenizer of a model folder or of a ``.gguf`` file."""
    folder, options = _locate(path, "tokenizer_config.json")
    try:
        return AutoTokenizer.from_pretrained(folder, **options)
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"{path}: no tokenizer could be loaded: {_first_line(error)}") from error


def new_causal(preset: str, vocabulary: int, tokenizer: Any, context: int = 512) -> Any:
    """Return a randomly initialised causal model of a preset's shape (Llama: RMSNorm, SwiGLU, rotary positions).

    The embedding is shared with the head: at these widths an untied head would be half of the model. Draw from the
    global generator: seed it first.
    """
    config = _llama(preset, vocabulary, tokenizer, context, tie_word_embeddings=True)
    return attend_by_tree(_fresh(AutoModelForCausalLM, config))


def new_causal_scorer(preset: str, vocabulary: int, tokenizer: Any, context: int = 512) -> Any:
    """Return a randomly initialised causal model of a preset's shape with a scalar head, for reward models."""
    config = _llama(preset, vocabulary, tokenizer, context, num_labels=1)
    return widen_head(attend_by_tree(_fresh(AutoModelForSequenceClassification, config)))


def new_encoder_scorer(preset: str, vocabulary: int, tokenizer: Any, context: int = 512) -> Any:
    """Return a randomly initialised bidirectional encoder (BERT) with a scalar head, for reward models."""
    config: Any = BertConfig(**_preset(preset), **_ids(tokenizer, vocabulary, context))
    config.num_labels = 1
    return widen_head(_fresh(AutoModelForSequenceClassification, config))


def load_causal(path: str, dtype: str = "float32") -> Any:
    """Load a causal language model from a folder or a ``.gguf`` file (dequantised), in ``dtype``.

    A folder with an adapter gives its base model with the adapter merged in.
    """
    if (base := adapters.base_path(path)) is not None:
        return adapters.load(load_causal(base, dtype), path)
    model = _load(AutoModelForCausalLM, path, dtype, may_miss="")
    if getattr(model.config, "quantization_config", None) is not None:
        # The weights are plain again; the mark of the file they came from would forbid saving them.
        model.hf_quantizer, model.is_quantized = None, False
        del model.config.quantization_config
    return attend_by_tree(model)


def attend_by_tree(model: Any) -> Any:
    """Let a causal model attend tree by tree where it can; ``layout: auto`` proves that it then computes the same."""
    if model.config._attn_implementation == "sdpa":
        model.set_attn_implementation(BY_TREE)
    return model


def load_scorer(path: str, dtype: str = "float32", tokenizer: Any = None) -> Any:
    """Load a model with a scalar head; a causal model without one gets a new head (drawn from the global generator).

    The head is float32 whatever ``dtype``. A folder with an adapter gives its base model with the adapter merged in.
    """
    if (base := adapters.base_path(path)) is not None:
        return adapters.load(load_scorer(base, dtype, tokenizer), path)
    with _float32_heads():
        model = _load(AutoModelForSequenceClassification, path, dtype, may_miss=_HEADS, num_labels=1)
    if tokenizer is not None:
        model.config.pad_token_id = tokenizer.pad_token_id
    return widen_head(attend_by_tree(model) if hasattr(model, "score") else model)


def save(model: Any, tokenizer: Any, folder: Path) -> None:
    """Write a model (safetensors) and its tokenizer so that the ``Auto`` classes load them."""
    # Training leaves the vocabulary as it is; PEFT would look into the base to be sure, and warn if that is no folder.
    options = {"save_embedding_layers": False} if adapters.is_adapted(model) else {}
    model.save_pretrained(folder, **options)
    tokenizer.save_pretrained(folder)


def saved_otherwise(model: Any, folder: Path) -> tuple[list[str], int]:
    """Names of the tensors in ``folder`` that differ from the model's of that name, and how many were compared."""
    held = adapters.saved_state(model) if adapters.is_adapted(model) else model.state_dict()
    different, compared = [], 0
    for file in sorted(folder.glob("*.safetensors")):
        for name, stored in safetensors.torch.load_file(file).items():
            if name in held:
                compared += 1
                if not torch.equal(stored, held[name].detach().cpu().to(stored.dtype)):
                    different.append(name)
    return different, compared


def context_length(model: Any) -> int:
    """The number of positions a model was built for."""
    return int(getattr(model.config, "max_position_embeddings", None) or 1 << 30)


def stored_context(path: str) -> int | None:
    """The same of a model on disk, read without its weights; None for a folder that has a tokenizer alone."""
    path = adapters.base_path(path) or path
    if Path(path).is_dir() and not (Path(path) / "config.json").exists():
        return None
    folder, options = _locate(path, "config.json")
    try:
        config = transformers.AutoConfig.from_pretrained(folder, **options)
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"{path}: its configuration cannot be read: {_first_line(error)}") from error
    return getattr(config, "max_position_embeddings", None)


def _fresh(kind: Any, config: Any) -> Any:
    """A model with random weights."""
    return quicken(kind.from_config(config))


def _llama(preset: str, vocabulary: int, tokenizer: Any, context: int, **extra: Any) -> Any:
    """A configuration of a preset's shape.

    transformers' default of 0.02 for the spread of initial weights suits widths in the thousands; at a width of 128
    it leaves attention uniform for hundreds of steps. 0.08 is near 1 / sqrt(width).
    """
    ids = _ids(tokenizer, vocabulary, context)
    return LlamaConfig(**_preset(preset), **ids, initializer_range=0.08, **extra)


def _preset(name: str) -> Mapping[str, int]:
    if name not in PRESETS:
        raise UserError(f"model.preset: '{name}' is not a preset ({', '.join(PRESETS)}){nearest(name, PRESETS)}")
    return PRESETS[name]


def _ids(tokenizer: Any, vocabulary: int, context: int) -> dict[str, Any]:
    return {
        "vocab_size": vocabulary,
        "max_position_embeddings": context,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }


_HEADS = rf"({'|'.join(HEADS)})\..*"
"""Weights that a model without a scalar head lacks, and that training a reward model makes."""


@contextmanager
def _float32_heads() -> Iterator[None]:
    """Let transformers read scalar heads in float32 whatever the dtype of the rest: rounded once, they stay rounded."""
    before = transformers.PreTrainedModel._keep_in_fp32_modules_strict
    transformers.PreTrainedModel._keep_in_fp32_modules_strict = {*(before or ()), *(rf"^{name}\." for name in HEADS)}
    try:
        yield
    finally:
        transformers.PreTrainedModel._keep_in_fp32_modules_strict = before


def _load(kind: Any, path: str, dtype: str, may_miss: str, **extra: Any) -> Any:
    """Load a model; weights that the file lacks would be random, so they are refused unless ``may_miss`` matches."""
    folder, options = _locate(path, "config.json")
    try:
        model, told = kind.from_pretrained(folder, dtype=DTYPES[dtype], output_loading_info=True, **options, **extra)
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise UserError(f"{path}: no model could be loaded: {_first_line(error)}") from error
    missing = sorted(name for name in told["missing_keys"] if not re.fullmatch(may_miss, name))
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise UserError(
            f"{path}: has no weights for '{missing[0]}'{more}; they would be random: is it another kind of model?"
        )
    return quicken(model)


def _locate(path: str, marker: str) -> tuple[str, dict[str, Any]]:
    """Split a ``.gguf`` path into folder and file name; refuse what is not on this disk or lacks ``marker``."""
    where = Path(path)
    if where.suffix == ".gguf" and where.is_file():
        return str(where.parent), {"gguf_file": where.name}
    if where.is_dir():
        if not (where / marker).exists():
            raise UserError(f"{path}: the folder has no {marker}; give the folder that has it")
        return str(where), {"local_files_only": True}
    raise UserError(f"{path}: no such model; give a folder with config.json or a .gguf file (nothing is downloaded)")


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0]
