"""Tiny random models of the families that trueup promises to share prompts for."""

from __future__ import annotations

from typing import Any

import torch
import transformers as hf

from trueup.models import hub

SHAPE = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48, "vocab_size": 61}
KV = {**SHAPE, "num_key_value_heads": 2, "max_position_embeddings": 128}
IDS = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}

CONFIGS: dict[str, Any] = {
    "llama": lambda: hf.LlamaConfig(**KV, **IDS),
    "qwen2": lambda: hf.Qwen2Config(**KV, **IDS),
    "qwen3": lambda: hf.Qwen3Config(**KV, **IDS, head_dim=8),
    "gpt2": lambda: hf.GPT2Config(
        n_embd=32,
        n_layer=2,
        n_head=4,
        vocab_size=61,
        n_positions=128,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        **IDS,
    ),
    "gemma": lambda: hf.GemmaConfig(**KV, **IDS, head_dim=8),
    "gemma2": lambda: hf.Gemma2Config(**KV, **IDS, head_dim=8, sliding_window=9, query_pre_attn_scalar=8),
    "gemma3": lambda: hf.Gemma3TextConfig(**KV, **IDS, head_dim=8, sliding_window=9, query_pre_attn_scalar=8),
    "mistral": lambda: hf.MistralConfig(**KV, **IDS, sliding_window=9),
    "phi": lambda: hf.PhiConfig(
        **SHAPE, **IDS, max_position_embeddings=128, resid_pdrop=0.0, embd_pdrop=0.0, attention_dropout=0.0
    ),
}


def build(name: str, seed: int = 0, dtype: torch.dtype = torch.float32) -> Any:
    """A random model with weights large enough that attention is not uniform."""
    torch.manual_seed(seed)
    model = hf.AutoModelForCausalLM.from_config(CONFIGS[name]()).to(dtype)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim >= 2:
                parameter.mul_(4.0)
    return hub.attend_by_tree(model).eval()
