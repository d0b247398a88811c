"""How a function of each kind is called. Plain data: the verb's help reads it without torch."""

from __future__ import annotations

from trueup.preflight.conformance.protocol import Signature

SIGNATURES: dict[str, Signature] = {
    "token_logps": Signature(
        "log-probabilities of response tokens",
        "f(logits [B,T,V], ids [B,T], mask [B,T]) or f(logits, labels [B,T], -100 where nothing counts)",
        "sums [B] or per token [B,T-1] or [B,T]; mask[b,t] says that the token ids[b,t] counts",
        {
            "logits": ("logit", "model_logits", "scores", "lm_logits"),
            "ids": ("input_ids", "tokens", "token_ids", "index", "targets", "labels", "inputs"),
            "mask": ("response_mask", "loss_mask", "completion_mask", "labels_mask", "label_mask", "action_mask"),
            "labels": (),
        },
        frozenset({"labels"}),
        {"labels": frozenset({"ids", "mask"})},
    ),
    "dpo_loss": Signature(
        "the DPO loss",
        "f(policy_chosen [B], policy_rejected [B], ref_chosen [B], ref_rejected [B], beta)",
        "the loss of each pair [B] or their mean; it may come first of a tuple, or as `loss` in a dictionary",
        {
            "policy_chosen": (
                "policy_chosen_logps",
                "chosen_logps",
                "policy_chosen_logp",
                "pi_chosen",
                "chosen_logp",
                "policy_logps_chosen",
                "pi_yw_logps",
                "policy_chosen_logprobs",
                "chosen_logprobs",
            ),
            "policy_rejected": (
                "policy_rejected_logps",
                "rejected_logps",
                "policy_rejected_logp",
                "pi_rejected",
                "rejected_logp",
                "policy_logps_rejected",
                "pi_yl_logps",
                "policy_rejected_logprobs",
                "rejected_logprobs",
            ),
            "ref_chosen": (
                "ref_chosen_logps",
                "reference_chosen_logps",
                "reference_chosen",
                "ref_chosen_logp",
                "chosen_ref_logps",
                "ref_logps_chosen",
                "ref_yw_logps",
                "ref_chosen_logprobs",
                "reference_chosen_logprobs",
            ),
            "ref_rejected": (
                "ref_rejected_logps",
                "reference_rejected_logps",
                "reference_rejected",
                "ref_rejected_logp",
                "rejected_ref_logps",
                "ref_logps_rejected",
                "ref_yl_logps",
                "ref_rejected_logprobs",
                "reference_rejected_logprobs",
            ),
            "beta": ("dpo_beta", "b", "temperature"),
        },
    ),
    "grpo_loss": Signature(
        "the clipped objective of PPO and GRPO",
        "f(logps [B,T], old_logps [B,T], advantages [B], mask [B,T], clip), and ref_logps [B,T], beta if it takes them",
        "the loss, to be made small",
        {
            "logps": ("new_logps", "policy_logps", "per_token_logps", "logprobs", "new_logprobs", "log_probs"),
            "old_logps": ("old_per_token_logps", "behaviour_logps", "old_logprobs", "old_log_probs"),
            "advantages": ("advantage", "adv", "advs"),
            "mask": ("response_mask", "completion_mask", "loss_mask", "action_mask"),
            "clip": ("epsilon", "eps", "clip_eps", "clip_range", "cliprange", "clip_ratio", "clip_epsilon"),
            "ref_logps": ("reference_logps", "ref_per_token_logps", "ref_logprobs", "ref_log_probs"),
            "beta": ("kl_coef", "kl_beta", "kl_coefficient", "beta_kl"),
        },
        frozenset({"clip", "ref_logps", "beta"}),
    ),
    "gae": Signature(
        "generalised advantage estimation",
        "f(rewards [B,T], values [B,T], gamma, lam), and mask [B,T] if it takes one",
        "advantages [B,T], alone or first of (advantages, returns)",
        {
            "rewards": ("reward", "token_rewards", "token_level_rewards"),
            "values": ("value", "old_values"),
            "gamma": ("discount",),
            "lam": ("lambda_", "gae_lambda", "lmbda", "lambd"),
            "mask": ("response_mask", "completion_mask", "action_mask", "eos_mask"),
        },
        frozenset({"mask"}),
    ),
    "kl": Signature(
        "the KL of the policy from the reference, by samples",
        "f(logps [B,T], ref_logps [B,T]), and mask [B,T] if it takes one",
        "per token [B,T], their mean, or the sum of each response [B]",
        {
            "logps": ("logp", "policy_logps", "policy_logp", "per_token_logps", "logprobs", "log_probs"),
            "ref_logps": ("ref_logp", "reference_logps", "ref_per_token_logps", "ref_logprobs", "ref_log_probs"),
            "mask": ("response_mask", "completion_mask", "action_mask"),
        },
        frozenset({"mask"}),
    ),
    "reward_loss": Signature(
        "the Bradley-Terry loss of a reward model",
        "f(chosen_scores [B], rejected_scores [B], margin [B] if it takes one)",
        "the loss of each pair [B] or their mean",
        {
            "chosen_scores": ("chosen", "chosen_rewards", "rewards_chosen", "chosen_reward", "r_chosen"),
            "rejected_scores": ("rejected", "rejected_rewards", "rewards_rejected", "rejected_reward", "r_rejected"),
            "margin": ("margins",),
        },
        frozenset({"margin"}),
    ),
}
