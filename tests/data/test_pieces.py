"""Pieces of a token sequence: nothing is lost, characters are whole, special tokens go by their names."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from small_tokenizer import small_tokenizer

from trueup.data.pieces import first_difference, split_pieces
from trueup.models.tokenizer import EOS

TOKENIZER = small_tokenizer()
TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\ufffd"), max_size=20)


def encoded(text: str) -> list[int]:
    return TOKENIZER(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]


@given(TEXT)
def test_pieces_are_the_sequence_and_their_text_is_the_text(text: str) -> None:
    ids = encoded(text)
    pieces = split_pieces(TOKENIZER, ids)
    assert [i for piece in pieces for i in piece.ids] == ids
    # This tokenizer writes a space before a text; a decoder that drops it must not drop one of any other piece.
    assert "".join(piece.text for piece in pieces).removeprefix(" ") == text.removeprefix(" ")
    assert not any("\ufffd" in piece.text or piece.special for piece in pieces)


def test_a_character_of_several_tokens_is_one_piece() -> None:
    ids = encoded("a🦜b")
    by_text = {piece.text.strip(): piece for piece in split_pieces(TOKENIZER, ids)}
    assert len(by_text["🦜"].ids) == 4 and len(by_text["b"].ids) == 1


def test_special_tokens_go_by_their_names_and_their_text_does_not() -> None:
    ids = [*encoded("the cat"), TOKENIZER.eos_token_id]
    *rest, last = split_pieces(TOKENIZER, ids)
    assert (last.text, last.special) == (EOS, True) and not any(piece.special for piece in rest)
    spelt = split_pieces(TOKENIZER, encoded(EOS))
    assert not any(piece.special for piece in spelt) and "".join(p.text for p in spelt).strip() == EOS


def test_half_a_character_is_not_swallowed() -> None:
    ids = encoded("é")[:-1]
    pieces = split_pieces(TOKENIZER, [*ids, TOKENIZER.eos_token_id])
    assert [i for piece in pieces for i in piece.ids] == [*ids, TOKENIZER.eos_token_id]
    assert pieces[-1].special


@given(st.lists(st.integers(0, 1), max_size=6), st.lists(st.integers(0, 1), max_size=6))
def test_the_first_difference(first: list[int], second: list[int]) -> None:
    index = first_difference(first, second)
    if index is None:
        assert first == second
    else:
        assert first[:index] == second[:index] and first[index : index + 1] != second[index : index + 1]
