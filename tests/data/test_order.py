"""The order of a data set is a function of seed and step: every row once an epoch, the same on every machine."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from trueup.data.order import step_indices
from trueup.runtime.seeding import generator


@given(
    steps=st.integers(1, 12), batch=st.integers(1, 9), size=st.integers(1, 9), seed=st.integers(0, 3), data=st.data()
)
def test_steps_cut_one_stream_of_epochs_in_whatever_order_they_are_asked_for(
    steps: int, batch: int, size: int, seed: int, data: st.DataObject
) -> None:
    asked = data.draw(st.permutations(range(steps)))
    found = {step: step_indices(step, batch, size, seed) for step in asked}
    stream = [row for step in range(steps) for row in found[step]]
    epochs = -(-len(stream) // size)
    orders = [torch.randperm(size, generator=generator(seed, "order", epoch)).tolist() for epoch in range(epochs)]
    assert stream == [row for order in orders for row in order][: steps * batch]


def test_the_order_does_not_drift() -> None:
    found = [step_indices(step, 3, 7, 11) for step in range(6)]
    assert found == [[0, 3, 5], [2, 4, 1], [6, 1, 0], [6, 2, 5], [3, 4, 5], [6, 3, 4]]


def test_what_is_done_with_a_step_does_not_change_the_next() -> None:
    expected = list(step_indices(0, 2, 5, 0))
    step_indices(0, 2, 5, 0).reverse()
    assert step_indices(0, 2, 5, 0) == expected
