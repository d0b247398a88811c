"""What a tokenizer and its template do to a file: lengths as training has them, and each planted fault."""

from __future__ import annotations

from typing import Any

import pytest
from audit_rows import asked, judged, pairs
from small_tokenizer import small_tokenizer

from trueup.data.audit_sheet import make_sheet
from trueup.data.audit_tokens import LIMITS, TokenAudit, rewrites_turns
from trueup.data.encode import Bounds, encode_pairs
from trueup.data.records import Loaded, Message, Pair
from trueup.data.template import make_encoder
from trueup.models.tokenizer import BOS, EOS

TOKENIZER = small_tokenizer()
ENCODER = make_encoder(TOKENIZER)


def template(rows: list[tuple[str, str, str]], tokenizer: Any = TOKENIZER) -> dict[str, Any]:
    return TokenAudit(pairs(rows), make_encoder(tokenizer)).template()


def test_the_share_left_out_is_what_encoding_leaves_out() -> None:
    rows = [("p" * n, "a", "b " * (n % 700)) for n in range(1, 2600, 90)]
    sheet = pairs(rows)
    found = TokenAudit(sheet, ENCODER).lengths(None)
    records = [Pair(asked(p), c, r, f"f:{i}") for i, (p, c, r) in enumerate(rows)]
    for limit in LIMITS:
        encoded = encode_pairs(Loaded(records, "pairs", "f", ""), ENCODER, Bounds(1 << 30, limit))
        assert found["left_out"][str(limit)] == pytest.approx(1 - len(encoded) / len(rows))
    assert found["left_out"]["512"] > found["left_out"]["2048"] > 0
    assert found["context"] is None and found["over_context"]["count"] == 0


def test_percentiles_and_prompts_over_the_context() -> None:
    audit = TokenAudit(judged([("x", "a", True), ("y" * 40, "b c d", False)]), ENCODER)
    prompts = [len(ENCODER.prompt(asked(text))) for text in ("x", "y" * 40)]
    found = audit.lengths(prompts[1])
    assert found["over_context"]["places"] == ["f:2"]
    assert audit.lengths(prompts[1] + 1)["over_context"]["count"] == 0
    assert (found["percentiles"]["prompt"]["p0"], found["percentiles"]["prompt"]["p100"]) == tuple(prompts)
    assert found["percentiles"]["unwanted"]["p50"] == len(ENCODER.response("b c d"))
    assert found["percentiles"]["row"]["p100"] == prompts[1] + len(ENCODER.response("b c d"))


def test_a_clean_file_has_nothing() -> None:
    found = template([("the cat", "sat", "mat"), ("name", "yes", "no")])
    tallies = ("special_in_responses", "special_in_prompts", "not_kept", "begins_twice")
    assert [found[name]["count"] for name in tallies] == [0, 0, 0, 0]
    assert (found["terminator"], found["rewrites"], found["several_turns"]) == (EOS, None, 0)
    assert found["added"] == {"before": f"{BOS}<|user|>", "after": "<|assistant|>"}


def test_names_of_special_tokens_in_texts() -> None:
    found = template([("a", f"yes{EOS}", "no"), (f"say <|user|>{EOS}", "yes", "no"), ("a < b", "a | b", "<||>")])
    assert found["special_in_responses"]["places"] == [f"f:1 ({EOS})"]
    assert found["special_in_prompts"]["count"] == 1
    assert found["special_in_prompts"]["places"][0].startswith("f:2 (")


def test_a_text_that_the_tokenizer_changes_is_not_kept() -> None:
    """A decoder that strips a space on the left, on an encoder that adds none."""
    from tokenizers import pre_tokenizers

    tokenizer = small_tokenizer()
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    found = template([("a", " lost", "kept")], tokenizer)
    assert (found["not_kept"]["count"], found["not_kept"]["places"]) == (1, ["f:1"])


def test_a_second_begin_of_text() -> None:
    twice = "{{ bos_token }}" + small_tokenizer().chat_template
    assert template([("a", "b", "c")], small_tokenizer(twice))["begins_twice"]["count"] == 1


def test_merges_across_the_boundary() -> None:
    """Without a template the prompt's last letters may merge with the response's first; behind a special token not."""
    from tokenizers import pre_tokenizers

    plain = small_tokenizer("")
    plain.backend_tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    assert template([("name an ani", "mal", "?")], plain)["merges"]["places"] == ["f:1"]
    chat = small_tokenizer()
    chat.backend_tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    assert template([("name an ani", "mal", "?")], chat)["merges"]["count"] == 0


TURN = "{{ '<|' + m['role'] + '|>' + CONTENT }}{% if m['role'] == 'assistant' %}{{ eos_token }}{% endif %}"
LOOP = "{% for m in messages %}" + TURN + "{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("m['content']", None),
        ("m['content'].split('</think>')[-1]", "cuts <think> blocks"),
        ("m['content'] | trim", "trims white space"),
        ("m['content'] | replace('answer', 'reply')", "renders earlier turns otherwise"),
        ("raise_exception('one turn only') if messages | length > 1 else m['content']", "refuses a second turn"),
    ],
)
def test_templates_that_rewrite_earlier_turns(content: str, said: str | None) -> None:
    found = rewrites_turns(small_tokenizer(LOOP.replace("CONTENT", content)))
    assert found is None if said is None else found is not None and found.startswith(said)


def test_rows_with_several_turns_are_counted_and_a_system_turn_is_none() -> None:
    turns = (Message("user", "a"), Message("assistant", "b"), Message("user", "c"))
    records = [Pair(turns, "d", "e", "f:1"), Pair((Message("system", "s"), turns[0]), "d", "e", "f:2")]
    assert TokenAudit(make_sheet("pairs", records), ENCODER).template()["several_turns"] == 1
