"""Token trees by hand: the prompt once, two responses, the same log-probabilities as two plain forward passes.

python examples/log_probabilities.py
"""

from __future__ import annotations

import torch

from trueup.data.trees import Tree, collate
from trueup.models.forward import token_scores
from trueup.models.hub import new_causal, wrap_tokenizer
from trueup.models.tokenizer import train_bpe
from trueup.ops.logprobs import sum_by_branch

torch.manual_seed(0)
tokenizer = wrap_tokenizer(train_bpe(["a prompt with two answers"], 300))
model = new_causal("seed", len(tokenizer), tokenizer).eval()
prompt, chosen, rejected = (tuple(tokenizer(text)["input_ids"]) for text in ("a prompt", "with two", "answers"))

trees = collate([Tree(prompt, (chosen, rejected))])
with torch.no_grad():
    shared = sum_by_branch(token_scores(model, trees).logps, trees.branch, trees.num_branches).total
    plain = []
    for response in (chosen, rejected):
        ids = torch.tensor([prompt + response])
        logps = model(input_ids=ids).logits[0, :-1].log_softmax(-1).gather(1, ids[0, 1:, None])[:, 0]
        plain.append(logps[len(prompt) - 1 :].sum())

print("tokens computed:", trees.num_tokens, "instead of", 2 * len(prompt) + len(chosen) + len(rejected))
print("shared:", shared.tolist())
print("plain: ", torch.stack(plain).tolist())
assert torch.allclose(shared, torch.stack(plain).double(), atol=1e-4)
