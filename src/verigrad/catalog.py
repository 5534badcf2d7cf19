"""The one table of names. Strings become objects here and nowhere else.

A spec names an entry and sets some of its parameters; what is left out keeps its default (`spec.py` has the grammar):

    pgd                                  a name alone
    pgd:steps=20,step_size=8/255         as it is written on the command line
    on-twin:attack=pgd(steps=20),change=frozen-grid
                                         inside another spec the parameters stand in parentheses

Hyphen and underscore are the same in names. `describe` writes the canonical spec, which stands for an object's
identity. This file imports no room of the house, so that names can be listed without torch; a target is imported when
it is built.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import MISSING, dataclass, fields, is_dataclass
from difflib import get_close_matches
from importlib import import_module
from inspect import Parameter, signature
from typing import Any, get_type_hints

from verigrad.spec import Mismatch, Unreadable, Value, Word, convert, expectation, read, show, write

KINDS = ("model", "threat", "attack", "change", "objective", "algorithm", "schedule", "certificate")
# The norms of the threats, as they are written in text.
NORMS = {"linf": "Linf", "l2": "L2", "l0": "L0"}
# What an attack may ask a model for, from most to least.
KNOWLEDGE = ("gradient", "logits", "decision")
# A budget attack stays inside the threat, a minimal one looks for the nearest error; a wrapper does as its part does.
FORMS = ("budget", "minimal", "wrapper")


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One name.

    Args:
        kind: one of `KINDS`.
        name: what a spec says, unique within its kind.
        target: "module:Class".
        paper: where it comes from, or "" where it is common knowledge.
        summary: what it is, in one line.
        norms: of an attack, those of `NORMS` that it is made for; it refuses the others. Empty where its parts decide.
        knowledge: of an attack, what it asks the model for, of `KNOWLEDGE`. Empty where that is what its parts ask for.
        form: of an attack, one of `FORMS`.
    """

    kind: str
    name: str
    target: str
    paper: str = ""
    summary: str
    norms: tuple[str, ...] = ()
    knowledge: tuple[str, ...] = ()
    form: str = ""


def _table(kind: str, *rows: tuple[str, ...]) -> tuple[Entry, ...]:
    return tuple(_entry(kind, *row) for row in rows)


def _entry(kind: str, name: str, target: str, paper: str, summary: str, facts: str = ";;") -> Entry:
    """A row of the table; `facts` of an attack read "norms; knowledge; form"."""
    norms, knowledge, form = facts.split(";")
    return Entry(
        kind=kind,
        name=name,
        target=f"verigrad.{target}",
        paper=paper,
        summary=summary,
        norms=tuple(norms.split()),
        knowledge=tuple(knowledge.split()),
        form=form.strip(),
    )


TABLE: tuple[Entry, ...] = (
    *_table(
        "model",
        ("small-conv", "models.networks.small:SmallConvNet", "", "two convolutions and two linear layers"),
        (
            "sonet",
            "models.networks.sonet:SONet",
            "Huang et al. 2020",
            "stabilised neural ODE: every layer is an ODE block with a skew field",
        ),
        (
            "skew-conv",
            "models.networks.skew:SkewConvNet",
            "Huang et al. 2020",
            "Eq. (3) as convolutional ODE blocks, pooling and a linear layer",
        ),
        (
            "skew-linear",
            "models.networks.skew:SkewLinearNet",
            "Huang et al. 2020",
            "fully connected Eq. (3) from the flattened image to the logits",
        ),
        (
            "odenet",
            "models.networks.odenet:ODENet",
            "Huang et al. 2020",
            "ten plain ODE blocks at full resolution: SONet's baseline",
        ),
        (
            "neural-ode-mnist",
            "models.networks.neural_ode:NeuralODEMNIST",
            "Chu et al. 2020",
            "plain neural ODE of 4 convolutions over [0, 100]",
        ),
        (
            "neural-ode-cifar",
            "models.networks.neural_ode:NeuralODECIFAR",
            "Chu et al. 2020",
            "plain neural ODE of 5 convolutions over [0, 500]",
        ),
        (
            "resnet10",
            "models.networks.resnet:ResNet10",
            "Huang et al. 2020",
            "SONet's baseline: a basic block in each of four stages",
        ),
        (
            "soblock",
            "models.networks.soblock:SOBlock",
            "Huang et al. 2020",
            "ResNet10 whose first layer is a stabilised ODE block",
        ),
        (
            "soblock-wide",
            "models.networks.soblock:WideSOBlock",
            "Huang et al. 2020",
            "WRN-34-10 whose first layer is a stabilised ODE block",
        ),
        (
            "wide-resnet",
            "models.networks.wide_resnet:WideResNet",
            "Zagoruyko & Komodakis 2016",
            "WRN-34-10, as in the TRADES code or in SONet's",
        ),
        (
            "resnet18",
            "models.networks.resnet:ResNet18",
            "He et al. 2015",
            "eight basic blocks; antisymmetric=true for the form of the optimal-control paper",
        ),
        (
            "resnet50",
            "models.networks.resnet:ResNet50",
            "He et al. 2015",
            "bottleneck blocks, with a stem for CIFAR and MNIST or for ImageNet",
        ),
        (
            "resnet56",
            "models.networks.resnet6n2:ResNet56",
            "Chu et al. 2020",
            "the CIFAR ResNet56 with a residual step size h",
        ),
        ("resnet8", "models.networks.resnet6n2:ResNet8", "Chu et al. 2020", "its sibling with three residual blocks"),
        (
            "preact-resnet18",
            "models.networks.preact_resnet:PreActResNet18",
            "He et al. 2016",
            "norm and ReLU before each convolution, as in the YOPO code",
        ),
        (
            "resnext34",
            "models.networks.resnext:ResNeXt34",
            "Finlay & Oberman 2021",
            "ResNeXt-34 (2×32) for CIFAR-10, as in its released code",
        ),
        (
            "polynet",
            "models.networks.polynet:PolyNet",
            "Zhang et al. 2017",
            "blocks y + hF(y) + hF(hF(y)): backward Euler's series, cut",
        ),
        (
            "fractalnet",
            "models.networks.fractalnet:FractalNet",
            "Larsson et al. 2016",
            "self-similar paths joined by their mean, without identities",
        ),
        (
            "revnet",
            "models.networks.revnet:RevNet",
            "Gomez et al. 2017",
            "invertible blocks: semi-implicit Euler on two halves of the channels",
        ),
        ("scaled-logits", "models.masks:ScaledLogits", "", "a model whose logits are multiplied by a constant"),
        ("quantised-input", "models.masks:QuantisedInput", "", "a model that sees its input rounded to a few levels"),
        ("normalised", "models.normalised:Normalised", "", "a model that sees its input less a mean, over a deviation"),
    ),
    *_table(
        "threat",
        ("linf", "core.threat:Linf", "", "each pixel moves by at most eps"),
        ("l2", "core.threat:L2", "", "the whole perturbation has Euclidean length at most eps"),
        ("l0", "core.threat:L0", "", "at most so many pixels change, to any valid value"),
    ),
    *_table(
        "attack",
        (
            "fgsm",
            "attacks.fgsm:FGSM",
            "Goodfellow et al. 2015",
            "one full step along the steepest direction",
            "linf l2 l0; gradient; budget",
        ),
        (
            "pgd",
            "attacks.pgd:PGD",
            "Madry et al. 2018",
            "projected gradient ascent with restarts",
            "linf l2 l0; gradient; budget",
        ),
        (
            "cw-linf",
            "attacks.carlini_wagner:CarliniWagnerLinf",
            "Carlini & Wagner 2017",
            "ascent on the hinged margin, as in the code of the SONet paper",
            "linf l2 l0; gradient; budget",
        ),
        (
            "spsa",
            "attacks.spsa:SPSA",
            "Uesato et al. 2018",
            "ascent on finite differences; needs no gradient",
            "linf l2 l0; logits; budget",
        ),
        (
            "apgd",
            "attacks.autopgd:AutoPGD",
            "Croce & Hein 2020",
            "ascent with momentum that halves its own step sizes; targeted too",
            "linf l2; gradient; budget",
        ),
        (
            "square",
            "attacks.square:Square",
            "Andriushchenko et al. 2020",
            "random search over squares; asks for logits only",
            "linf l2; logits; budget",
        ),
        ("ddn", "attacks.ddn:DDN", "Rony et al. 2019", "fast minimal attack under L2", "l2; gradient; minimal"),
        (
            "fmn",
            "attacks.fmn:FMN",
            "Pintor et al. 2021",
            "fast minimal attack under L2, Linf and L0",
            "linf l2 l0; gradient; minimal",
        ),
        (
            "cw-l2",
            "attacks.carlini_wagner_l2:CarliniWagnerL2",
            "Carlini & Wagner 2017",
            "minimal L2 attack, constants searched per sample",
            "l2; gradient; minimal",
        ),
        (
            "cw-l0",
            "attacks.carlini_wagner_l0:CarliniWagnerL0",
            "Carlini & Wagner 2017",
            "L2 searches on fewer and fewer pixels",
            "l0; gradient; minimal",
        ),
        (
            "cw-linf-2017",
            "attacks.carlini_wagner_linf:CarliniWagnerLinf2017",
            "Carlini & Wagner 2017",
            "the authors' own form of CW-Linf, with growing constants",
            "linf; gradient; minimal",
        ),
        (
            "greedy-pixels",
            "attacks.greedy_pixels:GreedyPixels",
            "",
            "one pixel after another, each chosen by asking; for L0",
            "l0; gradient logits; budget",
        ),
        (
            "boundary",
            "attacks.boundary:Boundary",
            "Brendel et al. 2018",
            "a walk along the decision boundary, by predictions alone",
            "linf l2; decision; minimal",
        ),
        (
            "logbarrier",
            "attacks.logbarrier:LogBarrier",
            "Finlay et al. 2019",
            "descends on the distance behind a barrier at the decision boundary",
            "linf l2; gradient; minimal",
        ),
        (
            "smallest-eps",
            "attacks.smallest_eps:SmallestEps",
            "",
            "the smallest eps at which a budget attack succeeds",
            "; ; minimal",
        ),
        (
            "nearest-of",
            "attacks.nearest_of:NearestOf",
            "Finlay & Oberman 2021",
            "the nearest error that any of several minimal attacks finds",
            "; ; minimal",
        ),
        (
            "worst-case",
            "attacks.ensemble:WorstCase",
            "",
            "several attacks, each on what the ones before it left",
            "; ; budget",
        ),
        (
            "standard-ensemble",
            "attacks.ensemble:StandardEnsemble",
            "Croce & Hein 2020",
            "Auto-PGD twice, FAB and Square, as AutoAttack's standard",
            "linf l2; gradient logits; budget",
        ),
        (
            "mi-fgsm",
            "attacks.momentum:MIFGSM",
            "Dong et al. 2018",
            "ascent along a running sum of normalised gradients",
            "linf l2 l0; gradient; budget",
        ),
        (
            "di2-fgsm",
            "attacks.diverse:DI2FGSM",
            "Xie et al. 2019",
            "ascent through random resizing and padding; momentum=1 for M-DI²-FGSM",
            "linf l2 l0; gradient; budget",
        ),
        (
            "fab",
            "attacks.fab:FAB",
            "Croce & Hein 2020",
            "nearest error by projections onto linearised boundaries; targets=9 for FAB-T",
            "linf l2; gradient; minimal",
        ),
        (
            "transfer",
            "attacks.transfer:Transfer",
            "Szegedy et al. 2014",
            "an attack made on another model and judged on this one",
            "; decision; wrapper",
        ),
        (
            "on-twin",
            "attacks.solver_aware:OnTwin",
            "",
            "an attack climbs a changed model and is judged on the model",
            "; ; wrapper",
        ),
    ),
    *_table(
        "change",
        ("frozen-grid", "attacks.solver_aware:FrozenGrid", "", "the solver's steps are constants in the backward pass"),
        (
            "initial-step",
            "attacks.solver_aware:InitialStepOnly",
            "",
            "only the first step of the grid is differentiated",
        ),
        ("whole-grid", "attacks.solver_aware:WholeGrid", "", "every choice of a step size is differentiated too"),
        ("batch-of-one", "attacks.solver_aware:BatchOfOne", "", "every sample is solved on a grid of its own"),
        (
            "other-tolerance",
            "attacks.solver_aware:OtherTolerance",
            "",
            "adaptive solves at another tolerance, a rung of a ladder",
        ),
        ("fixed-steps", "attacks.solver_aware:FixedSteps", "", "the solve takes fixed steps"),
        ("rescaled", "attacks.changes:Rescaled", "", "the logits are divided by their own size"),
        ("float64", "attacks.changes:Float64", "", "the model computes in double precision"),
        (
            "bf16",
            "attacks.changes:BFloat16",
            "",
            "gradients in bfloat16; every success is confirmed in the model's precision",
        ),
        (
            "identity-backward",
            "attacks.changes:IdentityBackward",
            "Athalye et al. 2018, BPDA",
            "a step without a derivative passes the gradient unchanged",
        ),
        (
            "noise-averaged",
            "attacks.changes:NoiseAveraged",
            "Athalye et al. 2018, EOT",
            "the gradient is averaged over noise on the input",
        ),
    ),
    *_table(
        "objective",
        ("natural", "training.objectives.natural:Natural", "", "cross-entropy on the images as they are"),
        (
            "adversarial",
            "training.objectives.adversarial:Adversarial",
            "Madry et al. 2018",
            "cross-entropy on images perturbed by an attack",
        ),
        (
            "fgsm-adversarial",
            "training.objectives.fgsm_adversarial:FGSMAdversarial",
            "Wong et al. 2020",
            "cross-entropy on images perturbed by one large step from a random start",
        ),
        (
            "gaussian-noise",
            "training.objectives.noise:GaussianNoise",
            "Cohen et al. 2019",
            "cross-entropy on images with normal noise",
        ),
        (
            "trades",
            "training.objectives.trades:TRADES",
            "Zhang et al. 2019",
            "cross-entropy, and the divergence between clean and perturbed predictions",
        ),
        (
            "gradient-penalty",
            "training.objectives.gradient_penalty:GradientPenalty",
            "Finlay & Oberman 2021",
            "cross-entropy, and the size of its gradient by the image, by finite differences",
        ),
    ),
    *_table(
        "algorithm",
        (
            "free",
            "training.algorithms.free:Free",
            "Shafahi et al. 2019",
            "each batch replayed, and one backward pass moves weights and images",
        ),
        (
            "yopo",
            "training.algorithms.yopo:YOPO",
            "Zhang et al. 2019",
            "images climb through the first layer alone between full passes",
        ),
        (
            "successive-approximations",
            "training.algorithms.successive_approximations:SuccessiveApproximations",
            "optimal-control paper, Algorithm 1",
            "each layer maximises its Hamiltonian with the norm of its weight at most 1",
        ),
    ),
    *_table(
        "schedule",
        ("steps", "training.schedule:Steps", "", "the learning rate falls by a factor at some places"),
        (
            "one-cycle",
            "training.schedule:OneCycle",
            "Smith & Topin 2018",
            "the learning rate rises once and falls once",
        ),
    ),
    *_table(
        "certificate",
        (
            "interval",
            "certificates.interval:Interval",
            "Gowal et al. 2018",
            "sound, Linf, 31 forwards: a box of images carried through the network, layer by layer",
        ),
        (
            "spectral",
            "certificates.spectral:Spectral",
            "Tsuzuku et al. 2018",
            "sound, L2 or Linf, 2 forwards: margin over the product of layer norms; ODE blocks by their steps",
        ),
        (
            "smoothing",
            "certificates.smoothing:Smoothing",
            "Cohen et al. 2019",
            "probabilistic, L2, n0 + n forwards or, at given radii, far fewer: the vote under Gaussian noise",
        ),
        (
            "l-bound",
            "certificates.lipschitz:LBound",
            "Finlay & Oberman 2021",
            "estimate, Linf, L2 or L1, 6 gradients: the loss's gap over its Lipschitz constant, from extreme values",
        ),
        (
            "omega-bound",
            "certificates.modulus:OmegaBound",
            "Finlay & Oberman 2021",
            "estimate, Linf, L2 or L1, 36 forwards, 19 gradients: gap, gradient and largest error of the linear model",
        ),
        (
            "clever",
            "certificates.clever:Clever",
            "Weng et al. 2018",
            "estimate, Linf, L2 or L1, 400 gradients a class: the gap over a Lipschitz constant of the image's own",
        ),
    ),
)


@dataclass(frozen=True, kw_only=True)
class _Key:
    """One parameter of a class: its annotation, and whether a spec must set it."""

    annotation: Any
    required: bool


def entries(kind: str) -> tuple[Entry, ...]:
    """All entries of a kind, in the table's order.

    Raises:
        BadInput: for an unknown kind.
    """
    if kind not in KINDS:
        raise _bad_input(f"There is no kind {kind!r}.{_nearest(kind, KINDS)} Kinds are {', '.join(KINDS)}.")
    return tuple(entry for entry in TABLE if entry.kind == kind)


def find(kind: str, name: str) -> Entry:
    """The entry of that name; hyphen and underscore are the same.

    Raises:
        BadInput: naming the nearest match and every known name.
    """
    known = {entry.name: entry for entry in entries(kind)}
    if (wanted := _canonical(name)) in known:
        return known[wanted]
    raise _bad_input(f"There is no {kind} {name!r}.{_nearest(wanted, known)} Known: {', '.join(known) or 'none yet'}.")


def load(entry: Entry) -> Any:
    """The class behind an entry. Imports its module, and so torch."""
    module, _, name = entry.target.partition(":")
    return getattr(import_module(module), name)


def build(kind: str, spec: str) -> Any:
    """The object that a spec describes.

    Raises:
        BadInput: the text cannot be read, or a name, key or value is unknown or of the wrong type; also whatever the
            object itself refuses.
    """
    tree = _tree(spec)
    return _construct(find(kind, tree.text), tree.pairs or {})


def _tree(spec: str) -> Word:
    try:
        return read(spec)
    except Unreadable as fault:
        raise _bad_input(f"Cannot read {spec!r}: {fault}. It should read NAME:key=value,key=value.") from None


def complete(spec: str, **values: int) -> str:
    """A model's spec with these values for the parameters that it, or a model inside it, has and leaves open.

    >>> complete("small-conv:channels=8", in_channels=3)
    'small-conv:channels=8,in_channels=3'

    Raises:
        BadInput: the text cannot be read, or a name is unknown.
    """
    tree = _completed(_tree(spec), values)
    written = ",".join(f"{key}={show(value)}" for key, value in (tree.pairs or {}).items())
    return f"{tree.text}:{written}" if written else tree.text


def _completed(model: Word, values: Mapping[str, int]) -> Word:
    keys = _keys(load(find("model", model.text)))
    pairs = dict(model.pairs or {})
    if "module" in keys and isinstance(inner := pairs.get("module"), Word):
        pairs["module"] = _completed(inner, values)
    missing = {key: Word(str(value)) for key, value in values.items() if key in keys and key not in pairs}
    return Word(model.text, pairs | missing)


def describe(obj: Any) -> str:
    """The canonical spec of a frozen dataclass: every field, sorted by name; equal objects give equal text.

    `build(kind, describe(obj)) == obj` for everything in the catalog. A class of the user's own is named by its dotted
    path, which identifies it and which `build` refuses.

    Raises:
        TypeError: obj is not a dataclass object, or holds what no spec can say.
    """
    name, pairs = _parts(obj)
    return f"{name}:{pairs}" if pairs else name


def _nested(obj: Any) -> str:
    name, pairs = _parts(obj)
    return f"{name}({pairs})"


def _parts(obj: Any) -> tuple[str, str]:
    cls = type(obj)
    if not is_dataclass(cls):
        raise TypeError(f"Only dataclass objects have a spec. Got {cls.__module__}.{cls.__qualname__}.")
    own = f"{cls.__module__}.{cls.__qualname__}"
    name = next((entry.name for entry in TABLE if entry.target.replace(":", ".") == own), own)
    keys = _keys(cls)
    pairs = [f"{key}={write(getattr(obj, key), keys[key].annotation, _nested)}" for key in sorted(keys)]
    return name, ",".join(pairs)


def _construct(entry: Entry, pairs: Mapping[str, Value]) -> Any:
    cls = load(entry)
    keys = _keys(cls)
    known = f"Its keys are {', '.join(sorted(keys))}." if keys else "It has no keys."
    values: dict[str, Any] = {}
    for key, value in pairs.items():
        if key not in keys:
            raise _bad_input(f"The {entry.kind} {entry.name} has no key {key!r}.{_nearest(key, keys)} {known}")
        annotation = keys[key].annotation
        try:
            values[key] = convert(value, annotation, _build_nested)
        except Mismatch:
            wanted = f"The {key!r} of {entry.name} must be {expectation(annotation)}. Got {show(value)}."
            raise _bad_input(f"{wanted} {known}") from None
    missing = [key for key in keys if keys[key].required and key not in values]
    if missing:
        raise _bad_input(f"The {entry.kind} {entry.name} needs a value for {', '.join(missing)}. {known}")
    return cls(**values)


def _build_nested(word: Word, annotation: Any) -> Any:
    """Another entry: of the kind that an annotation such as `Attack` stands for, else the first of that name."""
    told = getattr(annotation, "__name__", "").lower()
    kind = "model" if told == "module" else told
    if kind not in KINDS:
        kind = next((entry.kind for entry in TABLE if entry.name == _canonical(word.text)), "attack")
    return _construct(find(kind, word.text), word.pairs or {})


def _keys(cls: Any) -> dict[str, _Key]:
    """The parameters of a dataclass, or of the `__init__` of any other class."""
    if is_dataclass(cls):
        hints = _hints(cls)
        open_ = (MISSING, MISSING)
        return {
            field.name: _Key(
                annotation=hints.get(field.name, Any), required=(field.default, field.default_factory) == open_
            )
            for field in fields(cls)
            if field.init
        }
    hints = _hints(cls.__init__)
    return {
        name: _Key(annotation=hints.get(name, str), required=parameter.default is Parameter.empty)
        for name, parameter in signature(cls).parameters.items()
        if parameter.kind in (Parameter.POSITIONAL_OR_KEYWORD, Parameter.KEYWORD_ONLY)
    }


def _hints(of: Any) -> dict[str, Any]:
    try:
        return get_type_hints(of)
    except NameError:  # a class of the user's own, defined inside a function
        return {}


def _canonical(name: str) -> str:
    return name.strip().lower().replace("_", "-")


def _nearest(word: str, known: Iterable[str]) -> str:
    close = get_close_matches(word, list(known), n=1)
    return f" Did you mean {close[0]!r}?" if close else ""


def _bad_input(message: str) -> Exception:
    return import_module("verigrad.core.errors").BadInput(message)
