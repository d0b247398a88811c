"""Checkpoints: what is saved comes back bit for bit, and half a checkpoint is none."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from trueup.errors import UserError
from trueup.runtime.checkpoint import latest, load_state, save_state

DTYPES = (
    torch.float32,
    torch.bfloat16,
    torch.float16,
    torch.float64,
    torch.int64,
    torch.int32,
    torch.uint8,
    torch.bool,
)


@st.composite
def tensors(draw: st.DrawFn) -> torch.Tensor:
    """Any dtype and shape, scalars and empty ones included; random bits, so NaNs with payloads occur."""
    dtype = draw(st.sampled_from(DTYPES))
    shape = draw(st.lists(st.integers(0, 3), max_size=3))
    seed = draw(st.integers(0, 2**32))
    raw = torch.randint(
        0, 256, (*shape, dtype.itemsize), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8
    )
    if dtype == torch.bool:
        return raw[..., 0] > 127
    return raw.view(dtype).reshape(shape)


LEAVES = st.one_of(
    tensors(), st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text(st.characters(), max_size=5)
)
STATES = st.dictionaries(
    st.text(max_size=4),
    st.recursive(
        LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_size=5,
)


def same(a: Any, b: Any) -> bool:
    """Equal in structure, types and bits."""
    if isinstance(a, torch.Tensor):
        if not isinstance(b, torch.Tensor) or a.dtype != b.dtype or a.shape != b.shape:
            return False
        return torch.equal(a.reshape(-1).view(torch.uint8), b.reshape(-1).view(torch.uint8))
    if isinstance(a, dict):
        return isinstance(b, dict) and a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list):
        return isinstance(b, list) and len(a) == len(b) and all(map(same, a, b))
    return type(a) is type(b) and a == b


@settings(max_examples=60, deadline=None)
@given(STATES)
def test_a_nested_state_comes_back_bit_for_bit(state: dict[str, Any]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        save_state(Path(folder) / "step-1", state)
        assert same(state, load_state(Path(folder) / "step-1"))


def test_keys_that_hold_a_separator_do_not_meet(tmp_path: Path) -> None:
    state = {"a/b": torch.tensor([1]), "a": {"b": torch.tensor([2])}}
    save_state(tmp_path / "step-1", state)
    assert same(state, load_state(tmp_path / "step-1"))


def test_views_of_one_storage_are_saved_as_what_they_show(tmp_path: Path) -> None:
    base = torch.arange(12.0).reshape(3, 4)
    save_state(tmp_path / "step-1", {"all": base, "column": base[:, 1], "turned": base.T, "tied": base})
    loaded = load_state(tmp_path / "step-1")
    assert torch.equal(loaded["column"], torch.tensor([1.0, 5.0, 9.0])) and torch.equal(loaded["turned"], base.T)
    loaded["all"].zero_()
    assert torch.equal(loaded["tied"], base), "loaded tensors share memory"


def test_tuples_and_whole_number_keys_come_back_as_json_has_them(tmp_path: Path) -> None:
    save_state(tmp_path / "step-1", {"betas": (0.9, 0.99), "state": {0: {"step": torch.tensor(3.0)}}})
    loaded = load_state(tmp_path / "step-1")
    assert loaded["betas"] == [0.9, 0.99] and list(loaded["state"]) == ["0"]


def test_the_newest_is_the_highest_number(tmp_path: Path) -> None:
    assert latest(tmp_path / "none") is None
    for step in (9, 100, 10):
        save_state(tmp_path / f"step-{step}", {"step": step})
    found = latest(tmp_path)
    assert found is not None and load_state(found) == {"step": 100}


def test_half_a_checkpoint_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stop the writer before the rename, at every file it syncs: what was there before stays the newest."""
    save_state(tmp_path / "step-1", {"step": 1})
    real = os.fsync

    for survived in range(3):
        calls = iter(range(survived))

        def fail(handle: int, calls: Any = calls) -> None:
            if next(calls, None) is None:
                raise KeyboardInterrupt
            real(handle)

        monkeypatch.setattr(os, "fsync", fail)
        if survived < 2:
            with pytest.raises(KeyboardInterrupt):
                save_state(tmp_path / "step-2", {"step": 2, "w": torch.ones(4)})
            assert latest(tmp_path) == tmp_path / "step-1"
        monkeypatch.setattr(os, "fsync", real)
    # The rest of a writer that died is no obstacle to the next one.
    save_state(tmp_path / "step-2", {"step": 2, "w": torch.zeros(2)})
    assert latest(tmp_path) == tmp_path / "step-2"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-1", "step-2"]


def test_names_that_only_look_like_checkpoints(tmp_path: Path) -> None:
    for name in ("step-3.partial", "step-", "step-x", "step-4-old", "other"):
        (tmp_path / name).mkdir()
    assert latest(tmp_path) is None


@pytest.mark.parametrize("file", ["tensors.safetensors", "state.json"])
@pytest.mark.parametrize("damage", ["cut", "gone", "noise"])
def test_a_damaged_checkpoint_is_refused_by_name(tmp_path: Path, file: str, damage: str) -> None:
    save_state(tmp_path / "step-7", {"w": torch.ones(64), "step": 7})
    path = tmp_path / "step-7" / file
    if damage == "gone":
        path.unlink()
    else:
        whole = path.read_bytes()
        path.write_bytes(whole[: len(whole) // 2] if damage == "cut" else b"\xff" * len(whole))
    with pytest.raises(UserError, match=r"step-7: the checkpoint cannot be read .*; delete it"):
        load_state(tmp_path / "step-7")


def test_only_plain_formats_are_written(tmp_path: Path) -> None:
    """No pickle: a checkpoint can be opened without running what is in it."""
    save_state(tmp_path / "step-1", {"w": torch.ones(2), "n": [1, {"x": None}]})
    assert sorted(path.name for path in (tmp_path / "step-1").iterdir()) == ["state.json", "tensors.safetensors"]
    assert json.loads((tmp_path / "step-1" / "state.json").read_text(encoding="utf-8"))["n"] == [1, {"x": None}]
