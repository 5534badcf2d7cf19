"""The verdict and its causes as a SARIF 2.1.0 log, for pipelines that collect findings of static analysers.

Source: OASIS, Static Analysis Results Interchange Format Version 2.1.0. An upheld claim gives no result: collectors
raise an alert for every result, whatever its kind. The verdict stands in the properties of the run all the same.
"""

from __future__ import annotations

import hashlib
from typing import Any

from verigrad.reports.numbers import interval, percent
from verigrad.reports.summary import Summary, claimed_text, in_words
from verigrad.reports.words import VERDICTS

SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"

LEVELS = {"obfuscated": "error", "overstated": "error", "undecided": "warning"}
SEVERITY_LEVELS = {"invalid": "error", "masking": "warning", "note": "note"}


def sarif(summary: Summary) -> dict[str, Any]:
    """A log with one run: a result for a verdict that is not upheld, for each confirmed cause and each fired check."""
    findings = _findings(summary)
    rules: dict[str, str] = {}
    for finding in findings:
        rules.setdefault(finding["ruleId"], finding.pop("rule"))
        finding.pop("rule", None)
    places = {rule: place for place, rule in enumerate(rules)}
    keys = ("verdict", "clean", "claimed", "found", "interval", "n", "threat", "batch", "main_cause", "seal")
    return {
        "$schema": SCHEMA,
        "version": "2.1.0",
        "runs": [
            {
                "tool": {
                    "driver": {
                        "name": "verigrad",
                        "version": str(summary["versions"].get("verigrad", "unknown")),
                        "rules": [{"id": key, "shortDescription": {"text": text}} for key, text in rules.items()],
                    }
                },
                "artifacts": [{"location": {"uri": "audit.json"}}],
                "results": [{**finding, "ruleIndex": places[finding["ruleId"]]} for finding in findings],
                "properties": {key: summary[key] for key in keys},
            }
        ],
    }


def _findings(summary: Summary) -> list[dict[str, Any]]:
    word, n = summary["verdict"], summary["n"]
    found: list[dict[str, Any]] = []
    if word in LEVELS:
        text = (
            f"{summary['title']}: {word}. Claimed {claimed_text(summary)} under {summary['threat']}, "
            f"found {percent(summary['found'], n)} (95 % interval {interval(summary['interval'], n)}, n = {n}). "
            f"{in_words(' '.join(summary['reasons']), summary)}"
        )
        found.append(_result(summary, f"verdict/{word}", VERDICTS[word], LEVELS[word], text))
    for cause in summary["causes"]:
        if cause["confirmed"]:
            level = "error" if cause["kind"] == "masking" else "warning"
            rule = f"{cause['kind'].capitalize()}: {cause['label']}"
            text = f"{cause['label']}: {in_words(str(cause['evidence']), summary)}"
            found.append(_result(summary, f"cause/{cause['name']}", rule, level, text))
    for check in summary["health"]:
        if check["fired"]:
            level = SEVERITY_LEVELS.get(check["severity"], "warning")
            text = f"Health check not passed: {check['label']}. {check['detail']}"
            found.append(_result(summary, f"health/{check['name']}", check["label"], level, text))
    return found


def _result(summary: Summary, rule: str, description: str, level: str, text: str) -> dict[str, Any]:
    subject = str(summary["model"]["ref"] or summary["title"])
    print_of = hashlib.sha256("\n".join((rule, subject, str(summary["threat"]))).encode("utf-8", "replace")).hexdigest()
    place = {
        "physicalLocation": {"artifactLocation": {"uri": "audit.json", "index": 0}, "region": {"startLine": 1}},
        "logicalLocations": [{"fullyQualifiedName": subject}],
    }
    return {
        "ruleId": rule,
        "rule": description,
        "level": level,
        "message": {"text": text},
        "locations": [place],
        "partialFingerprints": {"verigrad/v1": print_of},
    }
