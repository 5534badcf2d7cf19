"""Each fact on a model that has it and on one that has not; what is fatal is what `check_classifier` refuses."""

import copy
import re
from pathlib import Path

import pytest
import torch
from torch import nn

from verigrad.core.errors import BadInput
from verigrad.models.behaviour import SHOWN, shuffled
from verigrad.models.facts import NAMES, Fact, facts
from verigrad.models.inspecting import check_classifier, weights_hash
from verigrad.models.loading import load_model
from verigrad.models.networks.small import SmallConvNet
from verigrad.models.normalised import Normalised

X = torch.rand(12, 1, 8, 8, generator=torch.Generator().manual_seed(0))
Y = torch.arange(12) % 10


class Function(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


def linear(seed: int = 0) -> nn.Sequential:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(nn.Flatten(), nn.Linear(64, 10)).eval()


def after(function) -> nn.Module:
    return nn.Sequential(linear(), Function(function)).eval()


def named(model: nn.Module, x=X, y=Y, **more) -> dict[str, Fact]:
    found = facts(model, x, y, **more)
    assert [fact.name for fact in found] == list(NAMES)
    assert all("\n" not in fact.detail for fact in found)
    return {fact.name: fact for fact in found}


def test_of_a_plain_classifier_every_fact_holds():
    model = linear()
    labels = model(X).argmax(1)
    found = named(model, X, labels)
    assert {name: fact.holds for name, fact in found.items()} == dict.fromkeys(NAMES, True)
    assert not any(fact.fatal for fact in found.values())
    assert found["finite weights"].value == 650
    assert found["classes"].value == 10
    assert found["dtype and device"].value == "float32 on cpu"
    assert found["gradient exists"].value == 1.0
    assert found["input range"].value == 1.0


def whole(x):
    return x - x.mean(0)


def ranked(x):
    return x * torch.arange(1, len(x) + 1).reshape(-1, 1)


@pytest.mark.parametrize(
    ("function", "order", "mates"),
    [(whole, True, False), (ranked, False, False), (lambda x: x * (1 + 2e-6 * len(x)), True, True)],
)
def test_company_is_told_from_place(function, order: bool, mates: bool):
    found = named(after(function))
    assert (found["batch order"].holds, found["batch-mates"].holds) == (order, mates)
    assert found["deterministic"].holds


def test_how_far_logits_move_is_the_closed_form():
    """An image alone is its own mean, so all that it had in the batch is gone."""
    assert named(after(whole))["batch-mates"].value == pytest.approx(1.0, rel=1e-6)
    # In another order, row i of 12 is the model's times the rank of its new place; the largest change is in some row.
    size = linear()(X).detach().double().abs().amax(1)
    rank = torch.arange(1, 13).double()
    moved = [(rank - rank[order.argsort()]).abs() for order in (torch.arange(12).flip(0), shuffled(12))]
    expected = torch.stack([size * change for change in moved]).max() / (size * rank).max()
    assert named(after(ranked))["batch order"].value == pytest.approx(expected.item(), rel=1e-5)


def mirrored(x):
    """A place and its mirror image in the batch are the same to it."""
    place = torch.arange(len(x))
    return x + (place * (len(x) - 1 - place)).reshape(-1, 1)


@pytest.mark.parametrize("count", range(3, 13))
def test_a_place_is_told_from_its_mirror_image(count: int):
    assert named(after(mirrored), X[:count], Y[:count])["batch order"].holds is False


@pytest.mark.parametrize("count", range(3, SHOWN + 1))
def test_the_shuffle_leaves_some_image_neither_at_its_place_nor_at_the_mirror_image(count: int):
    order, place = shuffled(count), torch.arange(count)
    assert torch.equal(order.sort().values, place)
    assert not bool(((order == place) | (order == count - 1 - place)).all())


def only(*sizes: int, leaving: bool = False):
    def forward(x):
        if len(x) not in sizes:
            raise SystemExit(0) if leaving else ValueError("of no such size\nsecond line")
        return linear()(x)

    return Function(forward).eval()


@pytest.mark.parametrize("leaving", [False, True])
def test_a_model_that_raises_on_batches_of_another_size_is_told_and_no_error(leaving: bool):
    x, y = X.repeat(4, 1, 1, 1), Y.repeat(4)
    found = named(only(48, 1, leaving=leaving), x, y)
    words = "SystemExit: 0" if leaving else "ValueError: of no such size"
    for name in ("deterministic", "batch order", "batch-mates", "gradient exists"):
        assert found[name].holds is found[name].value is None
        assert found[name].detail == f"Cannot be told, since the model raised {words}."
    assert found["input range"].value is not None


def test_a_model_that_refuses_other_scales_expects_none_of_them():
    def forward(x):
        if bool((x > 1).any()):
            raise ValueError("out of range")
        return linear()(x)

    found = named(Function(forward).eval(), X, linear()(X).argmax(1))
    assert (found["input range"].holds, found["input range"].value) == (True, 1.0)


def test_a_forward_pass_that_switches_parts_to_training_is_told_and_put_back():
    class Switching(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm, self.head = nn.BatchNorm2d(1), linear()

        def forward(self, x):
            if len(x) > 1:
                self.norm.train()
            return self.head(self.norm(x))

    model = Switching().eval()
    before, state = weights_hash(model), torch.random.get_rng_state()
    found = named(model)
    fact = found["eval mode"]
    assert (fact.holds, fact.fatal, fact.value) == (False, False, "switched")
    assert "1 of its parts into training mode, such as 'norm' (BatchNorm2d)" in fact.detail
    assert found["batch-mates"].holds is False
    assert not any(part.training for part in model.modules())
    assert weights_hash(model) == before
    check_classifier(model, X, Y)
    assert torch.equal(state, torch.random.get_rng_state())


def test_flips_are_counted():
    found = named(after(lambda z: z if len(z) > 1 else -z))["batch-mates"]
    assert "12 predictions flip" in found.detail


def test_a_sonet_under_a_common_grid_depends_on_its_mates():
    fact = named(load_model(str(Path(__file__).parents[1] / "nets" / "sonet")), X[:4], Y[:4])["batch-mates"]
    assert fact.holds is False
    assert fact.value > 1e-3


def test_a_random_model_is_not_asked_of_its_company():
    found = named(after(lambda x: x + 0.1 * torch.randn_like(x)))
    assert found["deterministic"].holds is False
    assert found["deterministic"].value > 1e-3
    assert found["batch order"].holds is found["batch-mates"].holds is None
    assert found["gradient exists"].holds


def test_nor_is_one_image():
    found = named(linear(), X[:1], Y[:1])
    assert found["batch order"].holds is found["batch-mates"].holds is None


def half_flat(x):
    """No slope where the first pixel is above its median."""
    return torch.where((x[:, 0, 0, :1] > X[:, 0, 0, 0].median()), 1.0, linear()(x))


@pytest.mark.parametrize(
    ("function", "share"),
    [
        (lambda x: linear()(x.round()), 0.0),
        (lambda x: linear()(x.detach()), 0.0),
        (lambda x: linear()(x + (x - x).sqrt()), 0.0),
        (half_flat, (X[:10, 0, 0, 0] <= X[:, 0, 0, 0].median()).float().mean().item()),
    ],
)
def test_a_gradient_that_is_none_zero_or_nan_is_told(function, share: float):
    found = named(Function(function).eval())
    assert found["gradient exists"].holds is False
    assert found["gradient exists"].value == pytest.approx(share)
    assert not any(fact.fatal for fact in found.values())


def test_a_cut_graph_is_told_and_not_fatal():
    fact = named(Function(lambda x: linear()(x.detach())).eval())["differentiable"]
    assert (fact.holds, fact.fatal, fact.value) == (False, False, "cut")


def test_log_probabilities_are_told_and_probabilities_are_fatal():
    fact = named(after(lambda z: z.log_softmax(1)))["logits"]
    assert (fact.holds, fact.fatal, fact.value) == (False, False, "log-probabilities")
    found = named(after(lambda z: z.softmax(1)))
    assert found["logits"].fatal
    assert found["deterministic"].holds is None
    assert "since 'logits' does not hold" in found["deterministic"].detail


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (lambda z: z.sigmoid(), "all values lie in [0, 1]"),
        (lambda z: z.softmax(1) * 0.9, "all values lie in [0, 1]"),
        (lambda z: z.softmax(1) + 1e-3, "all values lie in [0, 1]"),
        (lambda z: 100 * z.softmax(1), "every row has the same sum (100)"),
        (lambda z: z.softmax(1) - 0.5, "every row has the same sum (-4)"),
    ],
)
def test_what_could_be_probabilities_is_told_and_not_fatal(function, words: str):
    fact = named(after(function))["logits"]
    assert (fact.holds, fact.fatal, fact.value) == (None, False, "perhaps probabilities")
    assert words in fact.detail


@pytest.mark.parametrize(
    "function",
    [
        lambda z: z,
        lambda z: z.relu(),
        lambda z: z - z.mean(1, keepdim=True),
        lambda z: torch.cat([-z, z], 1),
        lambda z: z * 1e-3,
    ],
)
def test_logits_are_not_taken_for_probabilities(function):
    assert named(after(function))["logits"].value == "logits"
    assert named(after(function), X[:1], Y[:1])["logits"].holds is not False


def test_training_mode_is_told_and_put_back():
    model = nn.Sequential(nn.Dropout(0.5), *linear()).train()
    found = named(model)
    assert (found["eval mode"].holds, found["eval mode"].fatal) == (False, False)
    assert found["deterministic"].holds
    assert all(part.training for part in model.modules())


def test_nothing_is_left_behind():
    model = nn.Sequential(nn.BatchNorm2d(1), *linear(), Function(lambda z: z + torch.randn_like(z))).eval()
    before, state = weights_hash(model), torch.random.get_rng_state()
    facts(model, X, Y)
    assert torch.equal(state, torch.random.get_rng_state())
    assert weights_hash(model) == before
    assert all(weight.requires_grad and weight.grad is None for weight in model.parameters())
    first = facts(model, X, Y)
    torch.rand(1)
    assert facts(model, X, Y) == first


def test_other_precision_is_told():
    model = nn.Sequential(Function(lambda x: x.double()), linear().double()).eval()
    fact = named(model)["dtype and device"]
    assert (fact.holds, fact.fatal, fact.value) == (False, False, "float64 on cpu")


@pytest.mark.parametrize(
    ("mean", "std", "words"),
    [
        ((0.5,), (0.5,), r"values in \[-1, 1\]: perhaps --normalise 0.5/0.5"),
        ((0.0,), (1 / 255,), "--normalise 0/0.00392157"),
    ],
)
def test_another_range_is_found_by_its_accuracy(mean, std, words: str):
    """Class 1 where the scaled image is bright beyond what images in [0, 1] reach."""
    x = torch.rand(100, 1, 4, 4, generator=torch.Generator().manual_seed(1))
    middle = ((x.double().mean((1, 2, 3)).median() - mean[0]) / std[0]).item()

    def brightness(z):
        lead = z.mean((1, 2, 3)) - middle
        return torch.stack([-lead, lead], 1)

    inside = Function(brightness).eval()
    right = Normalised(inside, mean, std).eval()
    y = right(x).argmax(1)
    fact = named(inside, x, y)["input range"]
    assert fact.holds is False
    assert fact.value == pytest.approx((inside(x).argmax(1) == y).double().mean().item())
    assert re.search(words, fact.detail)
    assert named(right, x, y)["input range"].holds


def test_images_outside_the_box_are_told():
    fact = named(linear(), X * 3 - 1)["input range"]
    assert fact.holds is False
    assert "normalise in the model" in fact.detail


def test_of_a_model_that_knows_nothing_the_range_cannot_be_told():
    model = Function(lambda x: torch.arange(10.0).expand(len(x), 10) + 0 * x.sum((1, 2, 3))[:, None]).eval()
    x, y = X.repeat(20, 1, 1, 1), (torch.arange(240) % 10)
    fact = named(model, x, y)["input range"]
    assert (fact.holds, fact.value) == (None, pytest.approx(0.1))
    assert "not above chance (10.0%)" in fact.detail


def _nan(model: nn.Module) -> nn.Module:
    model = copy.deepcopy(model)
    nn.init.constant_(model[1].bias, torch.nan)
    return model


def _inference(x):
    with torch.inference_mode():
        return linear()(x)


def _only_many(x):
    if len(x) == 1:
        raise ValueError("too few")
    return linear()(x)


def _leaves_under_grad(x):
    if torch.is_grad_enabled():
        raise SystemExit(0)
    return linear()(x)


FATAL = [
    ("finite weights", nn.Sequential(nn.Flatten(), nn.LazyLinear(10)).eval()),
    ("differentiable", Function(_leaves_under_grad).eval()),
    ("eval mode", nn.Sequential(nn.BatchNorm2d(1), *linear()).train()),
    ("finite weights", _nan(linear())),
    ("finite weights", linear().to("meta")),
    ("takes images", nn.Linear(3, 10).eval()),
    ("takes images", Function(lambda x: (x, x)).eval()),
    ("takes images", Function(lambda x: linear()(x.mul_(2))).eval()),
    ("takes images", Function(_only_many).eval()),
    ("takes images", Normalised(linear(), (0.5, 0.5, 0.5), (0.2, 0.2, 0.2)).eval()),
    ("classes", after(lambda z: z[:, :1])),
    ("classes", after(lambda z: z[:, :9])),
    ("classes", after(lambda z: z[:5])),
    ("classes", after(lambda z: z / 0)),
    ("classes", after(lambda z: (9 * z).long())),
    ("logits", after(lambda z: z.softmax(1))),
    ("differentiable", Function(_inference).eval()),
    ("differentiable", Function(lambda x: linear()(torch.from_numpy(x.numpy()))).eval()),
]


@pytest.mark.parametrize(("name", "model"), FATAL)
def test_what_is_fatal_is_what_is_refused_in_the_same_words(name: str, model: nn.Module):
    found = named(model)
    assert [fact.name for fact in found.values() if fact.fatal] == [name]
    assert found[name].holds is False
    at = NAMES.index(name)
    assert all(found[later].holds is None for later in NAMES[at + 1 :])
    with pytest.raises(BadInput) as told:
        check_classifier(model, X, Y)
    assert str(told.value) == found[name].detail


def test_a_small_network_is_judged_in_small_batches_as_well():
    assert not any(fact.fatal for fact in facts(SmallConvNet().eval(), X, Y, batch=1))
