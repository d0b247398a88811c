"""Low-rank adapters through PEFT: the only module that imports it."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from trueup.errors import UserError
from trueup.models.forward import TokenLogps, scorer
from trueup.models.linear import quicken
from trueup.models.scalar_head import scalar_head
from trueup.types import TokenTrees


def attach(
    model: Any, base: str, rank: int, alpha: float | None = None, dropout: float = 0.0, targets: Sequence[str] = ()
) -> Any:
    """Freeze a model and give it trainable low-rank adapters; at first they change nothing (B = 0).

    A scalar head is trained as a whole beside them.

    Args:
        model: a transformers causal model, or one with a scalar head; its layers are replaced in place.
        base: where the model was loaded from; the saved adapter names it.
        rank: of the adapters. Hu et al. 2021, arXiv 2106.09685.
        alpha: the adapters' output is scaled by alpha / rank; default: twice the rank.
        dropout: before the adapters.
        targets: names of layers; default: every linear layer but the head.

    Returns:
        The PEFT model. Adapter weights are float32 whatever the dtype of the model.

    Raises:
        UserError: no layer of the model is called so.
    """
    from peft import LoraConfig, get_peft_model

    head = scalar_head(model)
    config = LoraConfig(
        task_type="CAUSAL_LM" if head is None else "SEQ_CLS",
        modules_to_save=None if head is None else [head],
        r=rank,
        lora_alpha=alpha or 2 * rank,  # type: ignore[arg-type]  # PEFT takes fractions
        lora_dropout=dropout,
        target_modules=list(targets) or "all-linear",
    )
    try:
        with _old_name():
            adapted: Any = get_peft_model(model, config)
    except ValueError as error:
        names = sorted({name.rpartition(".")[2] for name, part in model.named_modules() if isinstance(part, nn.Linear)})
        raise UserError(
            f"lora.targets: {', '.join(targets)}: the model has no such layers; its linear layers are called "
            f"{', '.join(names)}"
        ) from error
    # Set afterwards: PEFT puts transformers' name of the model there, which is no .gguf file and may be relative.
    config.base_model_name_or_path = base
    return quicken(adapted)


def is_adapted(model: nn.Module) -> bool:
    """True for a model with adapters."""
    return hasattr(model, "disable_adapter")


def saved_state(model: Any) -> dict[str, torch.Tensor]:
    """The adapters' weights under the names that they are saved by."""
    from peft import get_peft_model_state_dict

    return get_peft_model_state_dict(model, save_embedding_layers=False)


def without_adapters(model: Any) -> TokenLogps:
    """Return a scorer of the model under its adapters: the reference of an adapted policy, at no memory of its own."""
    under = scorer(model)

    def score(trees: TokenTrees) -> torch.Tensor:
        with model.disable_adapter():
            return under(trees)

    return score


def base_path(folder: str) -> str | None:
    """The path of the model that an adapter folder adapts, or None if the folder holds no adapter.

    Raises:
        UserError: the model is not on this disk.
    """
    file = Path(folder) / "adapter_config.json"
    if not file.is_file():
        return None
    base = json.loads(file.read_text(encoding="utf-8")).get("base_model_name_or_path")
    if not base or not Path(base).exists():
        raise UserError(
            f"{file}: adapts the model '{base}', which is not on this disk; "
            "put its path under base_model_name_or_path (nothing is downloaded)"
        )
    return base


def load(base: Any, folder: str) -> Any:
    """Put the adapters of a folder on their base model and merge them into its weights, all of which can be trained."""
    from peft import PeftConfig, PeftModel

    config = PeftConfig.from_pretrained(folder)
    config.task_type = None  # the adapters fit the backbone, whatever head the model has
    with _old_name():
        return PeftModel.from_pretrained(base, folder, config=config).merge_and_unload().requires_grad_(True)


def merged(model: Any) -> Any:
    """The model with its adapters merged into its weights and its trained head in place."""
    return model.merge_and_unload()


def underlying(model: Any) -> Any:
    """The model under its adapters, as it was before; the adapters are gone."""
    return model.unload()


@contextmanager
def _old_name() -> Iterator[None]:
    """PEFT 0.21 asks transformers for checkpointing by a name that transformers 5 warns of."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing.*", category=FutureWarning)
        yield
