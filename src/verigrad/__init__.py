"""Is this model robust, or are its gradients lying?

The public face. Names are imported when they are first used, so that `import verigrad` is quick and brings no torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from verigrad.attacks.carlini_wagner import CarliniWagnerLinf as CarliniWagnerLinf
    from verigrad.attacks.fgsm import FGSM as FGSM
    from verigrad.attacks.pgd import PGD as PGD
    from verigrad.attacks.spsa import SPSA as SPSA
    from verigrad.auditing.audit import Audit as Audit
    from verigrad.auditing.audit import audit as audit
    from verigrad.auditing.claim import Claim as Claim
    from verigrad.auditing.verifying import verify as verify
    from verigrad.core.threat import L0 as L0
    from verigrad.core.threat import L2 as L2
    from verigrad.core.threat import Linf as Linf
    from verigrad.data.load import load_data as load_data
    from verigrad.models.facts import facts as facts
    from verigrad.models.loading import load_model as load_model
    from verigrad.models.twin import twin as twin

__version__ = "0.1.0"

_HOMES = {
    "Audit": "auditing.audit",
    "CarliniWagnerLinf": "attacks.carlini_wagner",
    "Claim": "auditing.claim",
    "FGSM": "attacks.fgsm",
    "L0": "core.threat",
    "L2": "core.threat",
    "Linf": "core.threat",
    "PGD": "attacks.pgd",
    "SPSA": "attacks.spsa",
    "audit": "auditing.audit",
    "facts": "models.facts",
    "load_data": "data.load",
    "load_model": "models.loading",
    "twin": "models.twin",
    "verify": "auditing.verifying",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'verigrad' has no attribute {name!r}")
    value = getattr(import_module(f"verigrad.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
