"""What is got wrong in the clipped objective of PPO and GRPO."""

from __future__ import annotations

from trueup.preflight.conformance.protocol import Fault

OBJECTIVE = "loss = -min(ratio * A, clip(ratio, 1 - eps, 1 + eps) * A)"

NO_MINUS = Fault(
    "grpo-missing-minus",
    "The minus is missing: an optimiser makes the objective small.",
    "The loss falls, and the policy unlearns what was rewarded.",
    f"{OBJECTIVE}.",
)
ADVANTAGE_SIGN = Fault(
    "grpo-advantage-sign",
    "The advantages are taken with the other sign.",
    "The loss falls, and the policy unlearns what was rewarded.",
    "An advantage is positive where a response is better than its group.",
)
NOT_CLIPPED = Fault(
    "grpo-not-clipped",
    "The ratio is not clipped.",
    "With one update a batch it makes no difference; with more nothing holds the policy near the one that sampled.",
    f"{OBJECTIVE}.",
)
WRONG_SIDE = Fault(
    "grpo-max-for-min",
    "The larger of the free and the clipped term is taken, not the smaller.",
    "At ratio 1 both are equal. Away from it tokens lose their gradient where it would lead back.",
    f"{OBJECTIVE}; max belongs to the form with the minus inside.",
)
CLIPPED_ALONE = Fault(
    "grpo-clipped-without-min",
    "The clipped ratio is used alone, without the min.",
    "At ratio 1 it makes no difference. A token that has gone the wrong way past the clip has no gradient back.",
    f"{OBJECTIVE}.",
)
RANGE = Fault(
    "grpo-clip-range",
    "The ratio is held within other bounds than 1 - clip and 1 + clip.",
    "The clip acts at all times, only somewhere else than its setting says.",
    "ratio.clamp(1 - clip, 1 + clip), on the ratio and not on its logarithm.",
)
INVERTED = Fault(
    "grpo-ratio-inverted",
    "The ratio is old over new.",
    "It is 1 at the start; its gradient has the other sign, so that the policy unlearns what was rewarded.",
    "ratio = exp(logps - old_logps).",
)
LOG_RATIO = Fault(
    "grpo-log-ratio",
    "The logarithm of the ratio stands where the ratio should be.",
    "It is 0 at the start, below the clip: tokens with a negative advantage have no gradient.",
    "ratio = exp(logps - old_logps).",
)
RATIO_ONE = Fault(
    "grpo-ratio-one",
    "old_logps is not used: the ratio is 1 whatever it was.",
    "With one update a batch it makes no difference; with more the clip never acts and nothing corrects for the drift.",
    "Take the ratio against the log-probabilities stored when the responses were sampled.",
)
MASK = Fault(
    "grpo-mask-ignored",
    "Padding counts.",
    "The policy is trained on padding, and short responses count for more than they hold.",
    "Multiply by the mask before the sum, and divide by its sum.",
)
TOTAL = Fault(
    "grpo-not-averaged",
    "Tokens are summed up and divided by nothing.",
    "The step grows with the batch and the length; an optimiser like Adam hides it until the gradient is clipped.",
    "Divide by the response tokens, by the responses, or by a constant.",
)
ALONG_TOKENS = Fault(
    "grpo-advantage-along-tokens",
    "An advantage a response [B] has been laid along the tokens: token t gets the advantage of response t.",
    "It raises an error unless there are as many rows as columns; then it trains on noise.",
    "advantages[:, None]. If it is meant to take [B, T], state the call with advantages[:, None].expand_as(logps).",
)
RESCALED = Fault(
    "grpo-advantages-rescaled",
    "Advantages are whitened over the batch once more.",
    "They look as advantages do; that they were relative to a group is lost, and what is added to all is cancelled.",
    "Use the advantages as they are given.",
)
KL_SIGN = Fault(
    "grpo-kl-sign",
    "The KL term has the other sign.",
    "The policy is paid for leaving the reference; the reward may rise for a while.",
    "loss = policy loss + beta * kl.",
)
KL_K1 = Fault(
    "grpo-kl-k1",
    "The KL term is log pi - log pi_ref.",
    "As a number it is right; on the policy's own samples its expected gradient is 0, so beta does nothing.",
    "Use k3 = exp(ref_logps - logps) - 1 - (ref_logps - logps), or k2.",
)
KL_REVERSED = Fault(
    "grpo-kl-reversed",
    "In the KL term the policy and the reference have changed places.",
    "It is 0 at the start, as it should be; on samples of the policy it estimates nothing.",
    "k3 = exp(ref_logps - logps) - 1 - (ref_logps - logps).",
)
KL_OFF = Fault(
    "grpo-kl-off",
    "The function takes ref_logps, and nothing depends on it.",
    "The run is one without a KL term, at the price of a reference.",
    "loss = policy loss + beta * kl; or do not take a reference.",
)
KL_IN_ADVANTAGE = Fault(
    "grpo-kl-in-advantage",
    "The KL term is inside the product with the ratio.",
    "Its gradient comes to a small change of the advantage; beta acts as a learning rate, not as a penalty.",
    "loss = policy loss + beta * kl; a penalty in the reward is taken off before this function.",
)

NO_GRADIENT = Fault(
    "grpo-no-gradient",
    "No gradient reaches logps through the policy term.",
    "The loss is right at all times, and the policy does not move, or moves by its KL term alone.",
    "Detach old_logps, not logps and not the ratio.",
)
GRADIENT_SIGN = Fault(
    "grpo-gradient",
    "At ratio 1 the gradient of a token is not minus its advantage times its weight in the mean.",
    "The loss is right, and the policy moves otherwise.",
    "Look for a detach on one of the terms, or one sign too many.",
)
KL_DETACHED = Fault(
    "grpo-kl-detached",
    "No gradient reaches logps through the KL term.",
    "The loss and its curves are right, and beta does nothing.",
    "Take the detach or no_grad off the log-probabilities of the policy in the KL term.",
)
CONSTANTS = Fault(
    "grpo-constants-attached",
    "The gradient goes on to old_logps, ref_logps or the advantages.",
    "If the caller made them with a graph, the reference or the ratio's denominator is trained along.",
    "Detach them here, or make them under no_grad.",
)
EMPTY = Fault(
    "grpo-empty-response",
    "A response whose mask is empty makes the loss NaN or infinite.",
    "",
    "Divide by mask.sum(1).clamp(min=1), and multiply by masks rather than by 0/0.",
)
OVERFLOW = Fault(
    "grpo-overflow",
    "A log-ratio of 100 gives an infinite loss in float32.",
    "It is rare, and one token is enough.",
    "Bound the log-ratio, or let the exponential go on along a line.",
)
