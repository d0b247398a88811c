"""Reward functions of one's own, in one file; run it to see what they give.

trueup grpo --model path/to/model --data sums.jsonl --reward examples/reward_file.py:near --out runs/grpo

A function names what it wants to see, one entry a response: prompts, responses, ended, or a column of the data (here
``answer``). It returns one number a response, or None where it does not apply. The last one is written as TRL wants it.
"""

from __future__ import annotations

import re


def near(responses: list[str], answer: list[int]) -> list[float]:
    """1 for the right number, less the further off, 0 without a number."""
    scores = []
    for response, wanted in zip(responses, answer, strict=True):
        found = re.findall(r"-?\d+", response)
        scores.append(1 / (1 + abs(int(found[-1]) - wanted)) if found else 0.0)
    return scores


def stops(ended: list[bool], responses: list[str]) -> list[float | None]:
    """Stopping by itself counts only where something was said."""
    return [float(stopped) if said.strip() else None for stopped, said in zip(ended, responses, strict=True)]


def polite(completions, **kwargs):
    """A function for TRL's GRPOTrainer works as it is; completions of chat data are lists with one turn."""
    texts = [said if isinstance(said, str) else said[0]["content"] for said in completions]
    return [float("please" in text.lower()) for text in texts]


if __name__ == "__main__":
    said = ["It is 12, please.", "13", "", "no idea"]
    for name, scores in {
        "near": near(said, [12, 12, 12, 12]),
        "stops": stops([True, False, True, True], said),
        "polite": polite(said, answer=[12, 12, 12, 12]),
    }.items():
        print(name, scores)
