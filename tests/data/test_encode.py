"""Records become trees: what is kept, what is left out and counted, and what is said of rows that do not read back."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from trueup.data import encode
from trueup.data.encode import Bounds, EncodedSet, encode_examples, encode_pairs, encode_prompts
from trueup.data.read import read_examples, read_pairs, read_prompts
from trueup.data.records import Loaded, Message, Pair
from trueup.data.template import Encoder, make_encoder
from trueup.data.trees import Tree
from trueup.errors import UserError
from trueup.models.hub import wrap_tokenizer
from trueup.models.tokenizer import train_bpe
from trueup.preflight.identity import read_back_findings

WORDS = "the cat sat on a mat and saw one more cat"
GOOD = {"prompt": "the cat", "chosen": "sat on a mat", "rejected": "saw"}


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return make_encoder(wrap_tokenizer(train_bpe([WORDS], 300)))


@pytest.fixture(autouse=True)
def few_at_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Sets of a few rows take several rounds, and no test finds what another has encoded."""
    monkeypatch.setattr(encode, "_AT_ONCE", 3)
    monkeypatch.setenv("TRUEUP_CACHE", str(tmp_path / "cache"))


def write(folder: Path, *rows: Any, name: str = "rows.jsonl") -> Path:
    path = folder / name
    path.write_text("".join(json.dumps(row) + "\n" if row is not None else "\n" for row in rows), encoding="utf-8")
    return path


def one_by_one(encoder: Encoder, prompt: str, *responses: str) -> Tree:
    """A tree made with the tokenizer itself, one text at a time."""
    rendered = encoder.tokenizer.apply_chat_template(
        [{"role": "user", "content": prompt}], tokenize=False, add_generation_prompt=True
    )
    ids = [
        encoder.tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"] for text in responses
    ]
    end = (encoder.tokenizer.eos_token_id,)
    return Tree(
        tuple(encoder.tokenizer(rendered, add_special_tokens=False)["input_ids"]), tuple((*i, *end) for i in ids)
    )


def test_many_at_a_time_give_what_one_by_one_gives(tmp_path: Path, encoder: Encoder) -> None:
    texts = WORDS.split()
    rows = [{"prompt": p, "chosen": f"{p} <|end|> {c}", "rejected": c} for p, c in pairwise(texts)]
    pairs = encode_pairs(read_pairs(write(tmp_path, *rows)), encoder, Bounds(64))
    assert list(pairs.trees) == [one_by_one(encoder, r["prompt"], r["chosen"], r["rejected"]) for r in rows]
    told = [{"prompt": row["prompt"], "response": row["chosen"]} for row in rows]
    examples = encode_examples(read_examples(write(tmp_path, *told)), encoder, Bounds(64))
    assert list(examples.trees) == [one_by_one(encoder, r["prompt"], r["response"]) for r in told]
    prompts = encode_prompts(read_prompts(write(tmp_path, *told)), encoder, Bounds(64))
    assert list(prompts.trees) == [one_by_one(encoder, r["prompt"]) for r in told]


def test_rows_left_out_are_counted_and_rows_kept_know_their_number(tmp_path: Path, encoder: Encoder) -> None:
    long, same = GOOD | {"chosen": WORDS}, GOOD | {"chosen": "saw"}
    path = write(tmp_path, same, GOOD, None, long, None, same, GOOD | {"rejected": "a"}, long, long, GOOD)
    loaded = read_pairs(path)
    data = encode_pairs(loaded, encoder, Bounds(64, max_length=12))
    assert data.dropped == {"identical chosen and rejected": 2, "longer than 12 tokens": 3}
    assert data.row_numbers.tolist() == [2, 5, 8]  # blank lines are no rows
    assert [record.where for record in loaded.pick(data.row_numbers)] == [f"{path}:{line}" for line in (2, 7, 10)]
    assert f"{path}: 3 rows as pair of responses" in data.describe() and "3 dropped: longer than 12" in data.describe()


def test_different_texts_with_equal_tokens_are_no_preference(tmp_path: Path, encoder: Encoder) -> None:
    # The tokenizer puts a space before a text that has none.
    path = write(tmp_path, GOOD, GOOD | {"chosen": "a mat", "rejected": " a mat"})
    assert encode_pairs(read_pairs(path), encoder, Bounds(64)).dropped == {"identical chosen and rejected tokens": 1}


def test_a_prompt_without_room_is_refused_by_line_unless_a_length_was_set(tmp_path: Path, encoder: Encoder) -> None:
    path = write(tmp_path, GOOD, GOOD, None, GOOD, GOOD | {"prompt": WORDS})
    with pytest.raises(UserError, match=r"rows\.jsonl:5: the prompt has \d+ tokens"):
        encode_pairs(read_pairs(path), encoder, Bounds(12))
    assert encode_pairs(read_pairs(path), encoder, Bounds(12, max_length=12)).dropped == {"longer than 12 tokens": 1}
    with pytest.raises(UserError, match="no row is left"):
        encode_pairs(read_pairs(path), encoder, Bounds(64, max_length=3))


def test_the_summary_has_the_median_and_the_longest(tmp_path: Path, encoder: Encoder) -> None:
    path = write(tmp_path, *({"prompt": "cat", "response": " ".join(["cat"] * n)} for n in (9, 1, 5, 3, 30)))
    data = encode_examples(read_examples(path), encoder, Bounds(64))
    sizes = sorted(tree.size for tree in data.trees)
    assert f"tokens median {sizes[2]}, longest {sizes[4]}; none dropped" in data.describe()


def test_rows_that_do_not_read_back_are_named_as_the_file_has_them(tmp_path: Path, encoder: Encoder) -> None:
    unread = GOOD | {"rejected": " a cat"}  # the space at the very start is lost in decoding
    rows = [GOOD | {"chosen": "saw"}, None, unread, GOOD, unread]
    path = write(tmp_path, *rows)
    data = encode_pairs(read_pairs(path), encoder, Bounds(64))
    assert (data.read_back.wrong, data.read_back.checked) == (2, 3)
    assert data.read_back.places == (f"{path}:3", f"{path}:5")
    (finding,) = read_back_findings(data.read_back, encoder)
    assert f"{path}:3" in finding.remedy and "2 of 3" in finding.message
    sound = encode_pairs(read_pairs(write(tmp_path, GOOD, GOOD, name="sound.jsonl")), encoder, Bounds(64))
    assert sound.read_back.wrong == 0 and not read_back_findings(sound.read_back, encoder)


def test_of_many_rows_that_do_not_read_back_ten_are_named(tmp_path: Path, encoder: Encoder) -> None:
    path = write(tmp_path, *[{"prompt": "cat", "response": " a"}] * 23)
    found = encode_examples(read_examples(path), encoder, Bounds(64)).read_back
    assert (found.wrong, found.checked) == (23, 23)
    assert found.places == tuple(f"{path}:{line}" for line in range(1, 11))


def test_records_are_read_as_they_are_encoded_and_never_held(encoder: Encoder) -> None:
    """At no time have more rows been read than are encoded together, beyond those whose trees were handed on."""
    read, lead = 0, []

    def rows() -> Iterator[Pair]:
        nonlocal read
        for number in range(20):
            read += 1
            yield Pair((Message("user", "cat"),), f"a {number}", "saw", f"row {number}")

    class Watched:
        def __iter__(self) -> Iterator[Pair]:
            return rows()

    added = 0

    class Writer(encode.TreeWriter):
        def add(self, number: int, tree: Tree) -> None:
            nonlocal added
            lead.append(read - added)
            added += 1
            super().add(number, tree)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(encode, "TreeWriter", Writer)
        data: EncodedSet = encode_pairs(Loaded(Watched(), "pairs", "told", ""), encoder, Bounds(64))
    assert len(data) == 20 and max(lead) == 3


@pytest.mark.parametrize("texts", [[], ["cat"], ["cat", "", "a  b\n", "<|end|>"]])
def test_several_texts_are_encoded_as_each_alone(encoder: Encoder, texts: Sequence[str]) -> None:
    assert encoder.responses(texts) == [encoder.response(text) for text in texts]
    talks = [(Message("system", "on"), Message("user", text)) for text in texts]
    assert encoder.prompts(talks) == [encoder.prompt(talk) for talk in talks]
