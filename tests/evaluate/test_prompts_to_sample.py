"""How many tokens a response may have, and prompts that leave no room for them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trueup.data.read import read_prompts
from trueup.data.template import Encoder, make_encoder
from trueup.errors import UserError
from trueup.evaluate.prompts import MOST, default_cap, encode_with_room
from trueup.models import hub
from trueup.models.tokenizer import train_bpe


@given(st.integers(2, 1 << 30))
def test_the_default_leaves_half_of_the_context_to_the_prompt(context: int) -> None:
    cap = default_cap(context)
    assert 1 <= cap <= MOST and cap <= context - cap
    assert cap == MOST or context - 2 * cap in (0, 1)  # no shorter than it must be


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return make_encoder(hub.wrap_tokenizer(train_bpe(["one two three four"] * 3, 280)))


def test_a_prompt_is_refused_exactly_when_it_leaves_too_little_room(encoder: Encoder, tmp_path: Path) -> None:
    file = tmp_path / "prompts.jsonl"
    file.write_text("".join(json.dumps({"prompt": text}) + "\n" for text in ("one", "one two three four one two")))
    loaded = read_prompts(str(file))
    longest = len(encoder.prompt(loaded.records[1].prompt))
    fitting = encode_with_room(loaded, encoder, longest + 8, 8, "Do this.")
    assert len(fitting) == 2
    said = rf"prompts\.jsonl:2: .*{longest} tokens.*room for {longest - 1}\. Do this\.$"
    with pytest.raises(UserError, match=said):
        encode_with_room(loaded, encoder, longest + 7, 8, "Do this.")
    with pytest.raises(UserError, match=r"prompts\.jsonl:1: .*room for 0"):
        encode_with_room(loaded, encoder, 8, 9, "Do this.")
