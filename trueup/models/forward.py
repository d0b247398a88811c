"""The forward pass over token trees: hidden states once, the head only where a response token is predicted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from trueup.models.attention import attention_mask
from trueup.ops.logprobs import Head, TokenScores, linear_token_logps
from trueup.types import TokenTrees

TokenLogps = Callable[[TokenTrees], Tensor]
"""A frozen scorer: trees in, log-probabilities of the response tokens ``[N]`` out, no gradient."""


def hidden_states(model: nn.Module, trees: TokenTrees) -> Tensor:
    """Return the backbone's final hidden states ``[R*T, D]``; ``model`` is a transformers causal model."""
    backbone = backbone_of(model)
    mask = attention_mask(trees, backbone.config)
    output = backbone(input_ids=trees.tokens, position_ids=trees.positions, attention_mask=mask, use_cache=False)
    return output.last_hidden_state.flatten(0, 1)


def backbone_of(model: nn.Module) -> Any:
    """Return what makes hidden states of tokens: the transformers model without its head, adapters in place."""
    return _unwrapped(model).base_model


def head_of(model: nn.Module, temperature: float = 1.0) -> Head:
    """Return how ``model`` turns hidden states into logits, with the scalings its configuration asks for."""
    causal = _unwrapped(model)
    layer, config = causal.get_output_embeddings(), causal.config
    scale = getattr(config, "logit_scale", None) or 1.0 / (getattr(config, "logits_scaling", None) or 1.0)
    softcap = getattr(config, "final_logit_softcapping", None)
    return Head(layer.weight, getattr(layer, "bias", None), scale, softcap, temperature)


def token_scores(model: nn.Module, trees: TokenTrees, temperature: float = 1.0, collision: bool = False) -> TokenScores:
    """Return log-probability, entropy and top-1 flag of every response token ``[N]``; log Σ_v π(v)² if wanted."""
    hidden = hidden_states(model, trees)[trees.source]
    return linear_token_logps(hidden, head_of(model, temperature), trees.target, collision=collision)


def scorer(model: nn.Module, temperature: float = 1.0) -> TokenLogps:
    """Return a function that scores trees under ``model`` as it then is, in evaluation mode without a gradient."""

    @torch.no_grad()
    def score(trees: TokenTrees) -> Tensor:
        was_training = model.training
        model.eval()
        logps = token_scores(model, trees, temperature).logps
        model.train(was_training)
        return logps

    return score


def frozen_scorer(model: nn.Module, temperature: float = 1.0) -> TokenLogps:
    """Freeze ``model`` and return its ``scorer``."""
    return scorer(model.eval().requires_grad_(False), temperature)


def _unwrapped(model: nn.Module) -> Any:
    """The transformers model inside an adapter (PEFT replaces layers in place), or the model itself."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model  # type: ignore[operator]
