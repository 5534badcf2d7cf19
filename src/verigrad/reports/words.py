"""What the reports say in words: verdicts, stages, kinds of causes, severities, and the glossary."""

from __future__ import annotations

VERDICTS: dict[str, str] = {
    "upheld": "Nothing was found that contradicts the claim, by the attacks in the list of this audit. "
    "That is not a proof of robustness: an attack that was not tried may still break it.",
    "overstated": "The claim does not hold: a better attack breaks samples that the claim's attack left standing. "
    "No cause in the model itself was confirmed.",
    "obfuscated": "The claim does not hold, and the model hides it: its gradients mislead the claim's attack. "
    "Change the named cause, and the same samples break.",
    "undecided": "What was tried settles the claim neither way. Read the reasons before you quote either number.",
}

STAGES: dict[str, str] = {
    "claim": "Claim: the attack that the claim rests on",
    "intervention": "Interventions: one thing changed, attacked again",
    "escalation": "Escalation: more steps, restarts, attacks",
}

KINDS: dict[str, tuple[str, str]] = {
    "masking": ("Masking", "lies in the model: its gradients mislead whoever follows them"),
    "effort": ("Effort", "lies in the attack: it was too weak"),
}

SEVERITIES: dict[str, str] = {
    "invalid": "cannot be judged",
    "masking": "points to masking",
    "note": "for your information",
}

JOINT = (
    "This model's predictions depend on the other images in the batch, so a witness is a joint batch: the image counts "
    "as broken when it is misclassified together with the adversarial batch it was found in, which the ledger stores "
    "whole; “stands alone” says whether it is also misclassified in a batch of one."
)

GLOSSARY: tuple[tuple[str, str], ...] = (
    ("claim", "The robust accuracy that somebody reports, with the attack behind it."),
    ("clean", "Accuracy on the samples as they are, without an attack."),
    ("claimed", "The robust accuracy under test: as stated, or as the claim's attack measures it on these samples."),
    ("found", "Robust accuracy once every witness counts. It is an upper bound: the true value can only be lower."),
    ("found, alone", "The same, counting only witnesses that stand alone; it differs for batch-coupled models."),
    ("gap", "Claimed less found, in percentage points."),
    (
        "95 % interval",
        "Where the accuracy under the same attacks would lie on all data of this kind, for all we know from n samples; "
        "it does not cover attacks that were not tried.",
    ),
    ("threat", "What an attacker may change: a ball around the image (norm and radius), cut by the valid pixel range."),
    (
        "witness",
        "A stored adversarial example, inside the threat, checked by forward passes alone. The proof of a verdict.",
    ),
    ("stands alone", "The witness is misclassified in a batch of one too."),
    ("cause", "Why the claim's attack failed, named by an intervention that adds witnesses."),
    (
        "masking",
        "A cause in the model: grid, batch coupling, saturation, precision, randomness, a step without derivative.",
    ),
    ("effort", "A cause in the attack: too few steps, too few restarts, a weak score."),
    (
        "intervention",
        "One thing is changed, the survivors of the claim's attack are attacked again, new witnesses counted.",
    ),
    ("health check", "A measurement without an attack: can the model's gradient be trusted?"),
    (
        "confirmed",
        "An intervention adds enough witnesses; for a masking cause a health check that belongs to it fired as well.",
    ),
    ("escalation", "Rounds of ever more work on the survivors, until nothing more breaks by the stated rule."),
    ("margin", "Largest other logit less the logit of the true class: positive where misclassified."),
    ("forwards, backwards", "Evaluations of the model and of its gradient, counted for each sample."),
    ("seal", "One SHA-256 over everything recorded: an edited ledger no longer matches it."),
)


def verdict(word: str) -> str:
    """The standing sentence that belongs to a verdict; empty for a word that is none."""
    return VERDICTS.get(word, "")
