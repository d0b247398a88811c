"""One line in a TRL script: checks on the trainer's own tensors before the first step, and a monitor after it.

A tiny random model learns which of two lists of words is preferred. Then the same script with a fault that no curve
shows: the collator's mask is one token off. Needs TRL: pip install 'trueup[trl]'.
"""

from __future__ import annotations

import random
import tempfile
from typing import Any

import torch
import transformers
from datasets import Dataset, disable_progress_bars
from tokenizers import Tokenizer, models, pre_tokenizers
from trl import DPOConfig, DPOTrainer

from trueup.errors import GateError
from trueup.integrations.trl import watch

WORDS = ["tea", "milk", "sugar", "lemon", "water", "honey", "cup", "spoon", "hot", "cold", "please", "thanks"]


def tokenizer() -> Any:
    """A token for each word."""
    names = ["<pad>", "<unk>", "</s>", *WORDS]
    words = Tokenizer(models.WordLevel({name: i for i, name in enumerate(names)}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    )


def pairs(count: int) -> Dataset:
    """Orders with two answers; the polite one is preferred."""
    rng = random.Random(0)

    def some() -> str:
        return " ".join(rng.choices(WORDS[:-2], k=rng.randint(1, 5)))

    rows = [{"prompt": some(), "chosen": f" {some()} please", "rejected": f" {some()}"} for _ in range(count)]
    return Dataset.from_list(rows)


def trainer(folder: str) -> DPOTrainer:
    """TRL's trainer, as anybody would write it."""
    torch.manual_seed(0)
    shape = transformers.LlamaConfig(
        vocab_size=15, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64, pad_token_id=0
    )
    shape.bos_token_id, shape.eos_token_id = None, 2
    model = transformers.LlamaForCausalLM(shape)
    model.save_pretrained(f"{folder}/start")
    settings = DPOConfig(
        output_dir=f"{folder}/run",
        max_steps=30,
        logging_steps=1,
        learning_rate=1e-4,
        use_cpu=True,
        bf16=False,
        report_to="none",
        save_strategy="no",
        disable_tqdm=True,
    )
    start = transformers.AutoModelForCausalLM.from_pretrained(f"{folder}/start")
    return DPOTrainer(
        model=start, ref_model=model, args=settings, train_dataset=pairs(64), processing_class=tokenizer()
    )


def main() -> None:
    """Train twice: as it should be, and with a mask that is off by one."""
    disable_progress_bars()
    transformers.utils.logging.disable_progress_bar()
    with tempfile.TemporaryDirectory() as folder:
        sound = trainer(folder)
        sound.pop_callback(transformers.PrinterCallback)
        watch(sound, say=print)
        sound.train()

        print("\nThe same with a mask that is off by one:")
        faulty = trainer(folder)
        collate = faulty.data_collator

        def off_by_one(rows: list[Any]) -> dict[str, Any]:
            batch = collate(rows)
            return {**batch, "completion_mask": batch["completion_mask"].roll(-1, 1)}

        faulty.data_collator = off_by_one
        watch(faulty, say=print)
        try:
            faulty.train()
        except GateError as error:
            print(error)


if __name__ == "__main__":
    main()
