"""One prompt, one sequence of ids: as it is trained on, as the sampler continues it, as transformers renders it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from trueup.data.records import Prompt
from trueup.health.findings import Finding
from trueup.preflight.outcome import Outcome, made, skipped
from trueup.preflight.subject import Sample, Subject
from trueup.train.objectives.reward import RewardObjective

PROMPTS = "one rendering of prompts"
STOPS = "terminator and stops"
ASKED = 4
"""Prompts that are rendered again."""


def check_prompts(subject: Subject, sample: Sample) -> Outcome:
    """Compare ids that are trained on with those of the encoder, of sampling and evaluation, and of the template."""
    asked, tokenizer = subject.asked(ASKED), subject.encoder.tokenizer
    again = subject.encoder.prompts([turns for turns, _ in asked])
    plain = [_by_template(tokenizer, turns) for turns, _ in asked]
    findings = []
    for (_, ids), by_encoder, by_template in zip(asked, again, plain, strict=True):
        for where, other in (("sampling and evaluation render", by_encoder), ("the chat template gives", by_template)):
            if other is not None and other != ids and not findings:
                findings.append(_different(tokenizer, ids, where, other))
    trained = [ids for _, ids in asked]
    findings += _begins(tokenizer, trained, [r for tree in sample.trees for r in tree.responses])
    return made(PROMPTS, f"{len(asked)} prompts give the same ids in training, sampling and by the template", findings)


def check_stops(subject: Subject, sample: Sample) -> Outcome:
    """The token that ends every trained response must end a sampled one, here and in the model's own settings."""
    encoder, responses = subject.encoder, [r for tree in sample.trees for r in tree.responses]
    if not responses:
        return skipped(STOPS, "there are no responses")
    name = encoder.tokenizer.convert_ids_to_tokens(encoder.terminator)
    findings = []
    if encoder.terminator not in encoder.stops:
        findings.append(_never_stops(f"training ends responses with {name}, and sampling stops at others", name))
    sampled = sample.rehearsal is not None or getattr(subject.source, "complete", None) is not None
    unended = [] if sampled else [r for r in responses if r[-1] not in encoder.stops]
    if unended:
        findings.append(_never_stops(f"{len(unended)} of {len(responses)} responses do not end with {name}", name))
    own = _own_stops(subject.policy)
    if not isinstance(subject.objective, RewardObjective) and own and encoder.terminator not in own:
        findings.append(_stops_elsewhere(name, encoder.tokenizer.convert_ids_to_tokens(sorted(own))))
    return made(STOPS, f"responses end with {name}, where sampling stops", findings)


def _by_template(tokenizer: Any, turns: Prompt) -> tuple[int, ...] | None:
    """Ids as ``generate`` of any other tool would be given them; None without a template."""
    if not tokenizer.chat_template:
        return None
    told = [{"role": turn.role, "content": turn.content} for turn in turns]
    return tuple(tokenizer.apply_chat_template(told, tokenize=True, add_generation_prompt=True, return_dict=False))


def _own_stops(model: Any) -> frozenset[int]:
    """Where transformers' ``generate`` would stop this model."""
    told = [getattr(settings, "eos_token_id", None) for settings in (_generation(model), model.config)]
    found: Any = next((ids for ids in told if ids is not None), None)
    return frozenset() if found is None else frozenset([found] if isinstance(found, int) else found)


def _generation(model: Any) -> Any:
    return getattr(model, "generation_config", None)


def _begins(tokenizer: Any, prompts: Sequence[Sequence[int]], responses: Sequence[Sequence[int]]) -> list[Finding]:
    """A beginning-of-text token twice before a prompt, or at all before a response."""
    begin = tokenizer.bos_token_id
    if begin is None or begin == tokenizer.eos_token_id:
        return []
    doubled = sum(list(ids[:2]) == [begin, begin] for ids in prompts)
    inside = sum(ids[0] == begin for ids in responses)
    if not doubled and not inside:
        return []
    message = f"{tokenizer.bos_token} stands twice before {doubled} prompts and begins {inside} responses."
    remedy = (
        f"Remove {tokenizer.bos_token} from the texts of the file, or from the chat template if that writes it twice."
    )
    evidence = {"prompts": doubled, "responses": inside}
    return [Finding("begins-twice", "warning", 0, message, remedy, evidence, "F03 of the catalogue")]


def _different(tokenizer: Any, ids: Sequence[int], where: str, other: Sequence[int]) -> Finding:
    place = next((i for i, (a, b) in enumerate(zip(ids, other, strict=False)) if a != b), min(len(ids), len(other)))
    shown = [tokenizer.decode(list(part[max(0, place - 3) : place + 5])) for part in (ids, other)]
    message = f"A prompt is trained on as ...{shown[0]!r} and {where} ...{shown[1]!r} (from token {place} on)."
    remedy = "Use one tokenizer and one template in training, sampling and evaluation (model.tokenizer)."
    evidence = {"token": place, "trained": list(ids[:200]), "other": list(other[:200])}
    return Finding("prompts-differ", "fatal", 0, message, remedy, evidence, "F16, F133 of the catalogue")


def _never_stops(what: str, name: str) -> Finding:
    message = f"The model would not learn to stop: {what}."
    remedy = "End every response with the terminator and give it to the sampler as a stop (eos_token, chat template)."
    return Finding("never-stops", "fatal", 0, message, remedy, {"terminator": name}, "F05, F08 of the catalogue")


def _stops_elsewhere(name: str, own: Sequence[str]) -> Finding:
    message = f"Responses end with {name}, and the model's own generation settings stop at {', '.join(own)} alone."
    remedy = f"Add {name} to eos_token_id of its generation_config.json, or other tools will not stop the result."
    evidence = {"terminator": name, "stops": list(own)}
    return Finding("stops-elsewhere", "warning", 0, message, remedy, evidence, "F08 of the catalogue")
