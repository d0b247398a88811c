"""Scores of whole responses: read at the terminator whatever surrounds it, and in float32 whatever the backbone."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForSequenceClassification

from trueup.data.trees import Layout, Tree, collate
from trueup.models import hub
from trueup.models.scalar_head import read_at_terminator
from trueup.models.scoring import response_scores
from trueup.models.tokenizer import PAD, train_bpe

TINY = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
LENGTHS = ((3, 5, 1), (1, 2, 9), (7, 1, 4), (4, 6, 6))


@pytest.fixture
def tokenizer(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.setitem(hub.PRESETS, "tiny", TINY)  # type: ignore[arg-type]
    yield hub.wrap_tokenizer(train_bpe(["the cat sat on the mat"], 300))


def make(tokenizer: Any, kind: str = "causal") -> Any:
    """A scorer whose scores are between about -30 and 30, where bfloat16 is coarse."""
    build = {"causal": hub.new_causal_scorer, "encoder": hub.new_encoder_scorer}[kind]
    torch.manual_seed(0)
    model = build("tiny", len(tokenizer), tokenizer, 64).eval()
    with torch.no_grad():
        (model.score if kind == "causal" else model.classifier).weight.mul_(100 if kind == "causal" else 2000)
    return model


def trees(end: int) -> list[Tree]:
    """Two responses to a prompt, each with its terminator; every prompt has a terminator inside it too."""
    rng = random.Random(1)

    def draw(n: int) -> tuple[int, ...]:
        return tuple(rng.randrange(10, 250) for _ in range(n))

    return [Tree((*draw(p), end, *draw(2)), ((*draw(a), end), (*draw(b), end))) for p, a, b in LENGTHS]


def rows(some: list[Tree]) -> list[tuple[int, ...]]:
    return [(*tree.prompt, *response) for tree in some for response in tree.responses]


@torch.no_grad()
def ours(model: Any, some: list[Tree], layout: Layout = "shared") -> torch.Tensor:
    return response_scores(model, collate(some, layout, packing=layout != "plain"))


@torch.no_grad()
def theirs(model: Any, some: list[Tree], pad: int, side: str) -> torch.Tensor:
    """transformers' own forward pass and pooling, on a padded batch or row by row."""
    sequences = rows(some)
    if side == "none":
        return torch.cat([model(input_ids=torch.tensor([row])).logits[:, 0] for row in sequences])
    width = max(map(len, sequences)) + 3
    ids = torch.full((len(sequences), width), pad)
    mask = torch.zeros_like(ids)
    for number, row in enumerate(sequences):
        place = slice(0, len(row)) if side == "right" else slice(width - len(row), width)
        ids[number, place], mask[number, place] = torch.tensor(row), 1
    return model(input_ids=ids, attention_mask=mask).logits[:, 0]


@pytest.mark.parametrize("side", ["none", "right", "left"])
@pytest.mark.parametrize("layout", ["flat", "shared", "plain"])
def test_a_score_is_that_of_transformers_however_it_pads(tokenizer: Any, layout: Layout, side: str) -> None:
    model, some = make(tokenizer), trees(tokenizer.eos_token_id)
    expected = theirs(model, some, tokenizer.pad_token_id, side)
    assert expected.std() > 1
    torch.testing.assert_close(ours(model, some, layout), expected, rtol=1e-4, atol=1e-4)


def test_an_encoder_s_score_is_that_of_transformers_too(tokenizer: Any) -> None:
    model, some = make(tokenizer, "encoder"), trees(tokenizer.eos_token_id)
    expected = theirs(model, some, tokenizer.pad_token_id, "none")
    assert expected.std() > 1
    torch.testing.assert_close(ours(model, some, "plain"), expected, rtol=1e-3, atol=1e-2)


def test_the_terminator_is_where_the_score_is_read(tokenizer: Any) -> None:
    """The planted head sees which token its hidden state is of: embeddings pass through a model without layers."""
    end = tokenizer.eos_token_id
    model = make(tokenizer)
    model.model.layers = torch.nn.ModuleList()
    model.model.embed_tokens.weight.data[end] = 3 * torch.nn.functional.normalize(torch.ones(16), dim=0)
    model.score.weight.data.fill_(0.25)
    some = trees(end)
    assert torch.allclose(ours(model, some), torch.full((8,), 4.0), atol=1e-3), "ones after the norm, times 16 quarters"
    model.model.embed_tokens.weight.data[end].neg_()
    assert torch.allclose(ours(model, some), torch.full((8,), -4.0), atol=1e-3)


def padded_with_its_terminator(tokenizer: Any) -> Any:
    tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def test_padding_that_is_the_terminator_is_replaced(tokenizer: Any, tmp_path: Path) -> None:
    """As it stands transformers reads the token before; saved by us, padded by its own tokenizer, it does not."""
    model, end = make(tokenizer), padded_with_its_terminator(tokenizer).eos_token_id
    some = trees(end)
    model.config.pad_token_id = end
    wrong = theirs(model, some, end, "right")
    assert (ours(model, some) - wrong).abs().min() > 1e-3
    assert f"pads with {PAD!r}" in read_at_terminator(model, tokenizer, end)
    hub.save(model, tokenizer, tmp_path)
    loaded = AutoModelForSequenceClassification.from_pretrained(tmp_path).eval()
    pad = hub.load_tokenizer(str(tmp_path)).pad_token_id
    assert loaded.config.pad_token_id == pad != end
    for side in ("none", "left", "right"):
        torch.testing.assert_close(theirs(loaded, some, pad, side), ours(model, some), rtol=1e-4, atol=1e-4)


class OneSpecialToken:
    """The tokenizer of GPT-2 in this respect: one special token is everything."""

    pad_token_id = eos_token_id = 2
    all_special_ids, all_special_tokens = (2,), ("<end>",)

    @property
    def added_tokens_decoder(self) -> dict[int, Any]:
        return {}

    def convert_tokens_to_ids(self, token: str) -> int:
        raise AssertionError("there is no other token")


def test_without_another_special_token_a_batch_is_refused_rather_than_misread(tokenizer: Any, tmp_path: Path) -> None:
    model, some = make(tokenizer), trees(2)
    model.config.pad_token_id = 2
    assert "one response at a time" in read_at_terminator(model, OneSpecialToken(), 2)
    torch.testing.assert_close(theirs(model, some, 0, "none"), ours(model, some), rtol=1e-4, atol=1e-4)
    with pytest.raises(ValueError, match="padding token"):
        theirs(model, some, 0, "right")


def test_padding_that_ends_nothing_is_left_as_it_is(tokenizer: Any) -> None:
    model, before = make(tokenizer), tokenizer.pad_token
    model.config.pad_token_id = None
    assert read_at_terminator(model, tokenizer, tokenizer.eos_token_id) == ""
    assert tokenizer.pad_token == before and model.config.pad_token_id == tokenizer.pad_token_id


@pytest.mark.parametrize("kind", ["causal", "encoder"])
def test_scores_of_a_bfloat16_backbone_are_not_rounded(tokenizer: Any, kind: str, tmp_path: Path) -> None:
    hub.save(make(tokenizer, kind), tokenizer, tmp_path / "wide")
    model = hub.load_scorer(str(tmp_path / "wide"), "bfloat16", tokenizer).eval()
    dtypes = {name.split(".")[0]: parameter.dtype for name, parameter in model.named_parameters()}
    head = "score" if kind == "causal" else "classifier"
    assert dtypes.pop(head) == torch.float32 and set(dtypes.values()) == {torch.bfloat16}
    some = trees(tokenizer.eos_token_id) * 4
    scores = ours(model, some, "flat" if kind == "causal" else "plain")
    assert scores.dtype == torch.float32
    assert (scores != scores.bfloat16()).float().mean() > 0.9
    exact = ours(hub.load_scorer(str(tmp_path / "wide"), "float32", tokenizer).eval(), some, "plain")
    assert torch.corrcoef(torch.stack([scores, exact]))[0, 1] > 0.99


def test_a_bfloat16_model_scores_the_same_after_it_was_saved(tokenizer: Any, tmp_path: Path) -> None:
    hub.save(make(tokenizer), tokenizer, tmp_path / "wide")
    model = hub.load_scorer(str(tmp_path / "wide"), "bfloat16", tokenizer).eval()
    with torch.no_grad():
        model.score.weight.add_(1e-4)  # lost, were the head rounded on its way
    hub.save(model, tokenizer, tmp_path / "narrow")
    again = hub.load_scorer(str(tmp_path / "narrow"), "bfloat16", tokenizer).eval()
    some = trees(tokenizer.eos_token_id)
    assert torch.equal(ours(again, some), ours(model, some))
    assert not torch.equal(ours(again, some), ours(hub.load_scorer(str(tmp_path / "wide"), "bfloat16"), some))
    alone = AutoModelForSequenceClassification.from_pretrained(tmp_path / "narrow", dtype=torch.bfloat16).eval()
    found = theirs(alone, some, tokenizer.pad_token_id, "right").float()
    torch.testing.assert_close(found, ours(model, some), rtol=0.05, atol=0.5)
