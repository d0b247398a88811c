"""What the page for users of TRL says of log keys and of data is what TRL 1.16 and this package do."""

from __future__ import annotations

import fnmatch
import inspect
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import transformers as hf
from trl_page import ROOT, TRAINERS, of_trl, quoted, table, under
from trl_peer import QUIET, tiny_llama, trainer

from trueup.data.encode import Bounds, encode_pairs
from trueup.data.read import read_examples, read_judged, read_pairs, read_prompts
from trueup.data.template import make_encoder
from trueup.errors import UserError

trl = pytest.importorskip("trl", reason="TRL is a peer of the tests alone: pip install '.[peers]'")
pytestmark = QUIET


def documented() -> dict[str, str]:
    """Metric -> what docs/metrics.md says of TRL."""
    text = (ROOT / "docs/metrics.md").read_text(encoding="utf-8").split("\n## Items\n")[0]
    return {quoted(row[0])[0]: row[5] for row in table(text, 6)}


def logged(name: str) -> set[str]:
    """Keys that a trainer of TRL logs, read from its source; parts that are known only in a run as a star."""
    source = inspect.getsource(inspect.getmodule(of_trl(name, "Trainer")))  # type: ignore[arg-type]
    found = re.findall(r"\b(?:_metrics\[mode\]|metrics|stats)\[f?\"([^\"]+)\"\]", source)
    keys = {re.sub(r"\{[^}]+\}", "*", key.removeprefix("{prefix}")) for key in found}
    return {key for key in keys if not key.startswith("eval_")}


def metric_rows() -> Iterator[tuple[list[str], list[str], str, str]]:
    """TRL's keys, the trainers that log them, our name or nothing, and the remark."""
    for cells in table(under("## Metrics"), 4):
        trainers = [n for n in TRAINERS if n != "CPO"] if cells[1] == "all" else cells[1].split(", ")
        yield quoted(cells[0]), trainers, "".join(quoted(cells[2])), cells[3]


def test_metrics_are_those_of_trl() -> None:
    """Every key that a trainer adds has a row of that trainer, and every row is of a key that there is."""
    loop = {"loss", "grad_norm", "learning_rate"}  # of transformers' Trainer
    told: dict[str, list[str]] = {name: [] for name in TRAINERS if name != "CPO"}
    for keys, trainers, _, _ in metric_rows():
        for name in trainers:
            told[name] += keys
            assert [key for key in keys if not fnmatch.filter(logged(name) | loop, key)] == [], name
    for name, patterns in told.items():
        forgotten = {key for key in logged(name) if not any(fnmatch.fnmatch(key, p) for p in patterns)}
        assert forgotten == set(), name


def test_metrics_that_are_the_same_are_so_in_the_list_of_metrics() -> None:
    ours = documented()
    for _, _, name, remark in metric_rows():
        assert not name or name in ours, name
        assert not (re.match(r"same(:|$)", remark) and re.match("differs|not ", ours[name])), name


READERS = {"sft": read_examples, "dpo": read_pairs, "kto": read_judged, "grpo": read_prompts}
FORMATS = table(under("## Data"), 4)


@pytest.mark.parametrize("cells", FORMATS, ids=lambda cells: f"{cells[2]}, {cells[0]}")
def test_a_row_of_a_format_is_read_as_the_page_says(cells: list[str], tmp_path: Path) -> None:
    called, row, verb, shape = cells[0], quoted(cells[1])[0], cells[2], cells[3]
    (tmp_path / "rows.jsonl").write_text(row + "\n")
    assert trl.is_conversational(json.loads(row)) == ("conversational" in called)
    if shape == "refused":
        with pytest.raises(UserError):
            list(READERS[verb](tmp_path / "rows.jsonl").rows)
    else:
        loaded = READERS[verb](tmp_path / "rows.jsonl")
        assert loaded.shape.split(" (")[0] == shape
        assert len(loaded.records) == 1


CHATML = (
    "{% for m in messages %}{{ '<|im_start|> ' + m['role'] + ' \n ' + m['content'] + ' <|im_end|> \n ' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|> assistant \n ' }}{% endif %}"
)
"""As chat models have it, with spaces about the words of the tests' tokenizer."""


@pytest.fixture
def chat_tokenizer(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Words and line ends are tokens; TRL's trainers are given the same."""
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers

    words = ["<pad>", "<unk>", "</s>", "\n", "<|im_start|>", "<|im_end|>", "user", "assistant", "w3", "w4", "w5"]
    model = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    split: Any = pre_tokenizers.Split(Regex(" "), "removed")
    model.pre_tokenizer = split
    found = hf.PreTrainedTokenizerFast(tokenizer_object=model, pad_token="<pad>", eos_token="</s>", unk_token="<unk>")
    found.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    found.chat_template = CHATML
    monkeypatch.setattr("trl_peer.tokenizer", lambda: found)
    return found


def ids_of_trl(rows: list[dict[str, Any]], folder: Path) -> list[list[int]]:
    """Prompt, chosen and rejected of the first row as TRL's trainer prepares them."""
    peer = trainer("dpo", tiny_llama(), rows, folder, ref_model=tiny_llama())
    return [peer.train_dataset[0][name] for name in ("prompt_ids", "chosen_ids", "rejected_ids")]


def our_ids(rows: list[dict[str, Any]], with_tokenizer: Any, folder: Path) -> list[list[int]]:
    """The same as the recipes prepare them."""
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = encode_pairs(read_pairs(folder / "rows.jsonl"), make_encoder(with_tokenizer), Bounds(context=64))
    return [list(data.trees[0].prompt), *map(list, data.trees[0].responses)]


def test_trl_trains_what_the_template_writes_after_the_terminator(chat_tokenizer: Any, tmp_path: Path) -> None:
    sides = {name: [{"role": "assistant", "content": text}] for name, text in (("chosen", "w4"), ("rejected", "w5 w4"))}
    rows = [{"prompt": [{"role": "user", "content": "w3"}], **sides}]
    theirs, ours = ids_of_trl(rows, tmp_path / "trl"), our_ids(rows, chat_tokenizer, tmp_path)
    end, line = chat_tokenizer.convert_tokens_to_ids(["<|im_end|>", "\n"])
    assert theirs[0] == ours[0]
    assert [response[-1] for response in ours[1:]] == [end, end]
    assert theirs[1:] == [[*response, line] for response in ours[1:]]


PLAIN = [{"prompt": "w3", "chosen": " w4", "rejected": " w5"}]


def test_plain_text_goes_through_the_chat_template_here_and_not_in_trl(chat_tokenizer: Any, tmp_path: Path) -> None:
    word, eos = chat_tokenizer.convert_tokens_to_ids(["w3", "</s>"])
    theirs, ours = ids_of_trl(PLAIN, tmp_path / "trl"), our_ids(PLAIN, chat_tokenizer, tmp_path)
    assert theirs[0] == [word] and theirs[1][-1] == eos
    turn = [{"role": "user", "content": "w3"}]
    assert ours[0] == chat_tokenizer.apply_chat_template(turn, add_generation_prompt=True)["input_ids"]
    chat_tokenizer.chat_template = None
    assert our_ids(PLAIN, chat_tokenizer, tmp_path) == theirs
