"""What other tools call their metrics, in trueup's names: one table, each tool with the source it was read from.

A name that a tool logs is one of three: the same number as one of `docs/metrics.md` (renamed, kept, or converted), a
number that is known and has no counterpart here (``nothing``), or unknown. Readers list the last two; a user maps an
unknown one with ``--map``. ``*`` in a name stands for anything.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

SAME = "="


@dataclass(frozen=True)
class Meaning:
    """What a foreign metric is here.

    Attributes:
        ours: name of docs/metrics.md; ``SAME`` if it is the same; None if nothing of ours means this.
        note: what differs in its definition, or why it is not used.
        times: the setting that its values must be multiplied by to be ours; not read while that is unknown.
    """

    ours: str | None
    note: str = ""
    times: str | None = None


@dataclass(frozen=True)
class Tool:
    """A tool's table.

    Attributes:
        title: what a report calls it.
        source: where the definitions were read.
        names: metric -> meaning.
        by_method: meanings of names that say something else in each method.
        signs: (method, metrics that only this method logs), the first that fits decides.
    """

    title: str
    source: str
    names: Mapping[str, Meaning]
    by_method: Mapping[str, Mapping[str, Meaning]] = field(default_factory=dict)
    signs: tuple[tuple[str, frozenset[str]], ...] = ()

    def meaning(self, name: str, method: str | None) -> Meaning | None:
        """What a name says in a run of this method; None if the tool does not know it."""
        for table in (self.by_method.get(method or "", {}), self.names):
            found = table.get(name) or next((m for p, m in table.items() if "*" in p and fnmatchcase(name, p)), None)
            if found is not None:
                return found
        return None


def _same(*names: str, note: str = "") -> dict[str, Meaning]:
    return {name: Meaning(SAME, note) for name in names}


def _nothing(why: str, *names: str) -> dict[str, Meaning]:
    return {name: Meaning(None, why) for name in names}


def _sign(method: str, *names: str) -> tuple[str, frozenset[str]]:
    return method, frozenset(names)


_TIES = "ties count as wrong here and as half in trueup: an untrained policy has 0 instead of 0.5"
_TRAINER = {
    **_same("loss", "grad_norm", "learning_rate", "num_tokens"),
    **_nothing("a count or a summary of the run", "epoch", "total_flos", "train_*", "num_input_tokens_seen"),
    **_nothing("speed", "runtime", "samples_per_second", "steps_per_second", "memory/*", "tokens_per_second*"),
}
_PAIRS = {
    **_same("rewards/chosen", "rewards/rejected", "rewards/margins", "logps/chosen", "logps/rejected"),
    "rewards/accuracies": Meaning(SAME, _TIES),
    **_nothing("mean logits: they move without the probabilities moving", "logits/*"),
}

TRL = Tool(
    "TRL",
    "trl 1.16.0, trl/trainer/*_trainer.py; PPO: trl 1.12.0; ORPO and CPO: trl.experimental",
    {
        **_TRAINER,
        **_PAIRS,
        **_same("entropy", "mean_token_accuracy", "step_time"),
        **_same("reward", "reward_std", "frac_reward_zero_std", "rewards/*/mean", "rewards/*/std"),
        **_same(*(f"completions/{name}" for name in ("mean_length", "min_length", "max_length", "clipped_ratio"))),
        **_same("clip_ratio/low_mean", "clip_ratio/high_mean", "clip_ratio/region_mean"),
        **_same("sampling/sampling_logp_difference/mean", "sampling/sampling_logp_difference/max"),
        **_nothing(
            "extremes of a step", "clip_ratio/low_min", "clip_ratio/high_max", "completions/*_terminated_length"
        ),
        **_nothing("no counterpart", "sampling/importance_sampling_ratio/*", "policy_loss", "aux_loss", "tools/*"),
        "objective/kl": Meaning("kl/sequence_k1", "a sum over the response, not a value per token"),
        "objective/scores": Meaning("reward"),
        "objective/rlhf_reward": Meaning(SAME),
        "objective/entropy": Meaning(None, "a sum over the response; policy/entropy_avg is the one per token"),
        "objective/non_score_reward": Meaning(None, "minus kl_coef times objective/kl"),
        "policy/entropy_avg": Meaning("entropy"),
        "policy/approxkl_avg": Meaning("policy/approxkl", "half the mean square of log ratios: another estimate"),
        "policy/clipfrac_avg": Meaning("clip_ratio/region_mean"),
        "loss/policy_avg": Meaning("loss/policy"),
        "loss/value_avg": Meaning("loss/value"),
        "val/ratio": Meaning("policy/ratio"),
        "lr": Meaning("learning_rate"),
        **_nothing("no counterpart", "val/clipfrac_avg", "val/ratio_var", "val/num_eos_tokens", "eps", "episode"),
        **_nothing("terms of ORPO's loss", "log_odds_chosen", "log_odds_ratio", "nll_loss"),
    },
    {
        "grpo": {"kl": Meaning("kl/policy_reference_k3", "taken while updating, and weighted by the ratio")},
        "rloo": {"kl": Meaning("kl/policy_reference_k1")},
        "kto": {"kl": Meaning(SAME, "of each micro-batch by itself")},
        "reward": {**_same("margin", "mean_reward"), "accuracy": Meaning(SAME, _TIES)}
        | _nothing("extremes of a step", "min_reward", "max_reward"),
        "orpo": {
            "logps/chosen": Meaning(None, "ORPO logs a mean over tokens here, trueup a sum"),
            "logps/rejected": Meaning(None, "ORPO logs a mean over tokens here, trueup a sum"),
            "rewards/*": Meaning(None, "beta times a mean log-probability: ORPO has no reference"),
        },
    },
    (
        _sign("orpo", "log_odds_chosen"),
        _sign("dpo", "rewards/accuracies"),
        _sign("kto", "rewards/chosen"),
        _sign("dpo", "rewards/margins"),
        _sign("ppo", "objective/kl"),
        _sign("grpo", "frac_reward_zero_std"),
        _sign("grpo", "completions/mean_length"),
        _sign("reward", "mean_reward"),
        _sign("sft", "mean_token_accuracy"),
    ),
)

LLAMA_FACTORY = Tool(
    "LLaMA-Factory",
    "hiyouga/LLaMA-Factory, src/llamafactory/train/callbacks.py (trainer_log.jsonl)",
    {
        **_same("loss", "reward"),
        "lr": Meaning("learning_rate"),
        "accuracy": Meaning("rewards/accuracies", _TIES),
        **_nothing("a count of the run", "total_steps", "epoch", "percentage", "total_tokens", "predict_loss"),
        **_nothing("speed", "elapsed_time", "remaining_time", "throughput", "vram_*"),
    },
    signs=(_sign("dpo", "accuracy"), _sign("ppo", "reward")),
)

VERL = Tool(
    "verl",
    "verl-project/verl 0.8, verl/trainer/ppo/metric_utils.py and core_algos.py",
    {
        "actor/pg_loss": Meaning("loss/policy"),
        "actor/kl_loss": Meaning("kl/policy_reference_k3", "with the default kl_loss_type low_var_kl"),
        "actor/reward_kl_penalty": Meaning("kl/policy_reference_k1", "with the default kl_penalty kl"),
        "actor/entropy": Meaning("entropy"),
        "actor/entropy_loss": Meaning("entropy"),
        "actor/grad_norm": Meaning("grad_norm"),
        "actor/lr": Meaning("learning_rate"),
        "actor/pg_clipfrac": Meaning("clip_ratio/region_mean"),
        "actor/ppo_kl": Meaning("policy/approxkl", "the plain k1 estimate, which may be negative"),
        "critic/score/mean": Meaning("reward"),
        "critic/vf_explained_var": Meaning("val/explained_variance"),
        "critic/vf_loss": Meaning("loss/value"),
        "response_length/mean": Meaning("completions/mean_length"),
        "response_length/min": Meaning("completions/min_length"),
        "response_length/max": Meaning("completions/max_length"),
        "response_length/clip_ratio": Meaning("completions/clipped_ratio", "responses as long as the limit"),
        "training/rollout_probs_diff_mean": Meaning(None, "a difference of probabilities, ours is of logarithms"),
        **_nothing("no counterpart", "actor/*", "critic/*", "prompt_length/*", "response_length_non_aborted/*"),
        **_nothing("no counterpart", "response/*", "training/*", "rollout_corr/*", "num_turns/*"),
        **_nothing("scores of the task's own validation", "val-core/*", "val-aux/*", "val/*"),
        **_nothing("speed", "timing_s/*", "timing_per_token_ms/*", "perf/*", "global_seqlen/*"),
    },
    signs=(
        _sign("ppo", "critic/vf_loss"),
        _sign("ppo", "critic/vf_explained_var"),
        _sign("grpo", "critic/score/mean"),
        _sign("grpo", "actor/pg_loss"),
    ),
)

OPENRLHF = Tool(
    "OpenRLHF",
    "OpenRLHF/OpenRLHF 0.11, openrlhf/trainer/{dpo,rm,ppo}_trainer.py",
    {
        "loss": Meaning(SAME, "of the last micro-batch"),
        "loss_mean": Meaning(None, "the mean over a step's micro-batches of loss"),
        "lr": Meaning("learning_rate"),
        "grad_norm": Meaning(SAME),
        "policy_loss": Meaning("loss/policy"),
        "critic_loss": Meaning("loss/value"),
        "actor_lr": Meaning("learning_rate"),
        "kl": Meaning("kl/policy_reference_k1", "with the default estimator k1"),
        "reward": Meaning(SAME),
        "response_length": Meaning("completions/mean_length"),
        "truncated": Meaning("completions/clipped_ratio"),
        "ppo_clip_ratio": Meaning("clip_ratio/region_mean"),
        "ppo_kl": Meaning("policy/approxkl", "the plain k1 estimate, which may be negative"),
        **_nothing(
            "no counterpart", "return", "critic_lr", "nll_loss", "aux_loss", "total_length", "acc_mean", "values"
        ),
    },
    {
        "dpo": {
            "acc": Meaning("rewards/accuracies", _TIES),
            "chosen_reward": Meaning("rewards/chosen"),
            "reject_reward": Meaning("rewards/rejected"),
        },
        "reward": {"acc": Meaning("accuracy", _TIES)}
        | _nothing("a mean over one side; ours is over both", "chosen_reward", "reject_reward"),
    },
    (_sign("ppo", "policy_loss", "critic_loss"), _sign("grpo", "policy_loss"), _sign("dpo", "acc", "chosen_reward")),
)

TORCHTUNE = Tool(
    "torchtune",
    "pytorch/torchtune 0.6, recipes/*_dpo_*.py and ppo_full_finetune_single_device.py",
    {
        **_PAIRS,
        **_same("loss", "grad_norm"),
        "log_probs/chosen": Meaning("logps/chosen"),
        "log_probs/rejected": Meaning("logps/rejected"),
        "lr": Meaning("learning_rate"),
        "scores": Meaning("reward"),
        "rlhf_reward": Meaning("objective/rlhf_reward"),
        "policy_loss": Meaning("loss/policy"),
        "value_loss": Meaning("loss/value"),
        "clipfrac": Meaning("clip_ratio/region_mean"),
        "ratios": Meaning("policy/ratio"),
        "approx_policy_kl": Meaning("policy/approxkl"),
        "response_lengths": Meaning("completions/mean_length"),
        "kl": Meaning("kl/sequence_k1", "a sum over the response"),
        **_nothing("no counterpart", "kl_reward", "num_stop_tokens", "seq_len"),
        **_nothing("speed", "tokens_per_second_per_gpu", "peak_memory_*"),
    },
    signs=(_sign("dpo", "rewards/accuracies"), _sign("ppo", "rlhf_reward")),
)

NEMO_RL = Tool(
    "NeMo-RL",
    "NVIDIA-NeMo/RL 0.7, nemo_rl/algorithms/loss_functions.py",
    {
        **_same("loss", "grad_norm"),
        "lr": Meaning("learning_rate"),
        "accuracy": Meaning("rewards/accuracies", _TIES),
        "rewards_chosen_mean": Meaning("rewards/chosen", "logged without beta", times="preference.beta"),
        "rewards_rejected_mean": Meaning("rewards/rejected", "logged without beta", times="preference.beta"),
        "preference_loss": Meaning("loss/sigmoid"),
        "sft_loss": Meaning("loss/sft"),
        **_nothing("a count", "num_valid_samples", "num_valid_seqs", "num_unmasked_tokens", "global_valid_*"),
    },
    signs=(_sign("dpo", "preference_loss"), _sign("reward", "rewards_chosen_mean")),
)

DPO_2023 = Tool(
    "the DPO authors' code and HALOs",
    "eric-mitchell/direct-preference-optimization f8b8c0f, trainers.py; ContextualAI/HALOs",
    {
        "loss/train": Meaning("loss"),
        "loss/eval": Meaning("eval/loss"),
        "grad_norm": Meaning(SAME),
        **{
            f"{kind}_{split}/{side}": Meaning(f"{prefix}{kind}/{side}", _TIES if side == "accuracies" else "")
            for split, prefix in (("train", ""), ("eval", "eval/"))
            for kind, sides in (
                ("rewards", ("chosen", "rejected", "margins", "accuracies")),
                ("logps", ("chosen", "rejected")),
            )
            for side in sides
        },
        **_nothing("a count", "counters/*", "examples_per_second"),
    },
    signs=(_sign("dpo", "rewards_train/margins"), _sign("sft", "logps_train/chosen")),
)

SCRIPT = Tool(
    "a script of its own",
    "names that training loops written from scratch give their numbers",
    {
        **_same("loss", "grad_norm", "learning_rate", "entropy", "reward"),
        "lr": Meaning("learning_rate"),
        "accuracy": Meaning("rewards/accuracies", "not told how ties count: often as wrong, in trueup as half"),
        "reward_margin": Meaning("rewards/margins", "not told whether beta is in it: judged from the loss"),
        "margin": Meaning("rewards/margins", "not told whether beta is in it: judged from the loss"),
        "mean_reward": Meaning("reward"),
        "avg_reward": Meaning("reward"),
        "response_length": Meaning("completions/mean_length"),
        "kl": Meaning(None, "not told which estimate, per token or per response: --map kl=kl/policy_reference_k1"),
        "epoch": Meaning(None, "a count"),
    },
    signs=(_sign("dpo", "reward_margin"),),
)

TOOLS: Mapping[str, Tool] = {
    "trl": TRL,
    "llama-factory": LLAMA_FACTORY,
    "verl": VERL,
    "openrlhf": OPENRLHF,
    "torchtune": TORCHTUNE,
    "nemo-rl": NEMO_RL,
    "dpo-2023": DPO_2023,
    "script": SCRIPT,
}
"""In order of preference where several know as many of the names. Axolotl, ms-swift, Unsloth and alignment-handbook
train with TRL's trainers or subclasses of them and log TRL's names."""

SETTINGS: Mapping[str, Mapping[str, str]] = {
    "dpo": {"beta": "preference.beta", "pref_beta": "preference.beta", "rl_beta": "preference.beta"}
    | {"loss_type": "preference.loss", "pref_loss": "preference.loss", "label_smoothing": "preference.label_smoothing"}
    | {"reference_policy_kl_penalty": "preference.beta"},
    "online-dpo": {"beta": "preference.beta", "loss_type": "preference.loss"},
    "kto": {"beta": "kto.beta"},
    "orpo": {"beta": "orpo.beta"},
    "grpo": {"beta": "grpo.kl_coef", "kl_loss_coef": "grpo.kl_coef", "num_generations": "grpo.group_size"},
    "rloo": {"beta": "rloo.kl_coef", "num_generations": "rloo.group_size"},
    "ppo": {"kl_coef": "ppo.kl_coef", "init_kl_coef": "ppo.kl_coef"},
}
"""Method -> its settings elsewhere -> trueup's dotted keys; ``learning_rate`` is ``optim.learning_rate`` in all."""
