"""Training reaches what it should on digits, is the same every time, and resumes bit for bit."""

from dataclasses import replace

import pytest
import torch
from short_training import EPS, EVERY, SHORT, Noisy, short_run, some
from torch import nn

from verigrad import catalog
from verigrad.attacks.pgd import PGD
from verigrad.core.classifier import predict
from verigrad.core.errors import BadInput
from verigrad.core.seeds import seeded
from verigrad.core.threat import Linf
from verigrad.data.digits import load_digits
from verigrad.data.packed import packed, unpacked
from verigrad.models.networks.small import SmallConvNet
from verigrad.training.checkpoint import Epoch
from verigrad.training.objectives.adversarial import Adversarial
from verigrad.training.objectives.base import Loss
from verigrad.training.objectives.natural import Natural
from verigrad.training.recipe import Recipe
from verigrad.training.schedule import OneCycle, Steps
from verigrad.training.trainer import initialised, train
from verigrad.training.watching import Accuracies, Watch, collapsed, is_best

QUICK = Recipe(epochs=10, optimiser="adam", lr=5e-3, schedule=OneCycle())


def trained(objective, recipe: Recipe = QUICK) -> nn.Module:
    data = load_digits("train")
    model = initialised(SmallConvNet, recipe.seed)
    train(model, data.x, data.y, objective, recipe)
    return model


@pytest.fixture(scope="module")
def natural() -> nn.Module:
    return trained(Natural())


@pytest.fixture(scope="module")
def hardened() -> nn.Module:
    return trained(Adversarial(threat=EPS, attack=PGD(steps=5, keep="last")))


def robust(model: nn.Module) -> float:
    data = load_digits("test")
    x, y = data.x[:200], data.y[:200]
    attack = PGD(steps=20, step_size=0.015, score="margin")
    result = attack(model, x, y, EPS, generator=seeded(0, "test", range(200)))
    return 1 - float(result.broken.float().mean())


def clean(model: nn.Module) -> float:
    data = load_digits("test")
    return float((predict(model, data.x).argmax(1) == data.y).float().mean())


def test_a_natural_net_is_right_on_new_digits(natural: nn.Module):
    assert not natural.training
    assert clean(natural) > 0.95


def test_adversarial_training_makes_a_net_more_robust(natural: nn.Module, hardened: nn.Module):
    assert clean(hardened) > 0.9
    assert robust(hardened) > robust(natural) + 0.15


def test_the_same_seed_gives_the_same_weights_and_touches_no_global_state():
    state = torch.random.get_rng_state()
    first, told = short_run()
    torch.manual_seed(99)
    second, again = short_run()
    torch.random.set_rng_state(state)
    assert first == second
    assert told.history == again.history
    other, _ = short_run(replace(SHORT, seed=1))
    assert other != first


def test_the_global_generator_is_left_alone():
    state = torch.random.get_rng_state()
    short_run()
    assert torch.equal(state, torch.random.get_rng_state())


def test_history_and_progress_are_told(capsys):
    seen = []
    _, told = short_run(progress=seen.append)
    assert [epoch.number for epoch in told.history] == [1, 2, 3, 4]
    assert [(one.step, one.steps) for one in seen] == [(i + 1, 16) for i in range(16)]
    assert seen[-1].epoch == told.history[2]


def test_the_means_of_an_epoch_are_told_while_it_runs():
    means = []
    _, told = short_run(progress=lambda one: means.append(one.so_far()))
    for number, epoch in enumerate(told.history):
        assert means[4 * number + 3] == pytest.approx(epoch.parts)
    first = []

    class Spy:
        def __call__(self, model, x, y, *, generator):
            loss = Natural()(model, x, y, generator=generator)
            first.append(loss.parts["cross_entropy"].item())
            return loss

    means.clear()
    short_run(method=Spy(), progress=lambda one: means.append(one.so_far()["cross_entropy"]))
    assert means[:2] == pytest.approx([first[0], (first[0] + first[1]) / 2])
    assert means[3] == pytest.approx((16 * sum(first[:3]) + 2 * first[3]) / 50)


def test_nothing_is_printed(capsys):
    told = short_run()[1]
    assert set(told.history[0].parts) == {"cross_entropy", "accuracy"}
    assert all(0 <= epoch.validation <= 1 for epoch in told.history)
    assert len(told.validation_ids.unique()) == 10
    assert capsys.readouterr().out == ""


def test_held_out_samples_are_never_trained_on():
    x = torch.arange(60.0).reshape(60, 1, 1, 1) / 60
    seen = []

    class Spy:
        def __call__(self, model, x, y, *, generator):
            seen.extend((x.flatten() * 60).round().int().tolist())
            return Natural()(model, x, y, generator=generator)

    model = nn.Sequential(nn.Flatten(), nn.Linear(1, 10))
    told = train(model, x, some()[1], Spy(), SHORT)
    held = set(told.validation_ids.tolist())
    assert set(seen) == set(range(60)) - held
    assert len(seen) == 50 * 4


def test_a_loss_that_is_not_finite_is_told():
    class Infinite:
        def __call__(self, model, x, y, *, generator):
            loss = model(x).sum() * float("inf")
            return Loss(loss, {"cross_entropy": loss.detach()})

    with pytest.raises(BadInput, match=r"after epoch 1\. Lower the 'lr'"):
        train(initialised(Noisy, 0), *some(), Infinite(), SHORT)


def test_something_must_be_left_to_train_on():
    with pytest.raises(BadInput, match="leaves none of 60"):
        train(initialised(Noisy, 0), *some(), Natural(), Recipe(validation=60))


class Recorder:
    """An algorithm that counts its batches in `memory`, updates twice a batch, and tells what it was lent."""

    def __init__(self) -> None:
        self.lent = []

    def step(self, state, x, y, *, generator):
        seen = state.memory.get("seen", torch.zeros((), dtype=torch.int64))
        state.memory["seen"] = seen + len(x)
        assert state.model.training
        assert state.module is state.model
        for _ in range(2):
            with state.precision():
                loss = nn.functional.cross_entropy(state.model(x), y)
            with state.alone():
                loss.backward()
            state.update()
            assert all(weight.grad is None for weight in state.module.parameters())
        self.lent.append((state.step, state.steps, state.lr))
        return {"cross_entropy": loss.detach()}


def test_an_algorithm_is_lent_the_state():
    recorder = Recorder()
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    recipe = replace(SHORT, schedule=Steps(at=(0.5,), factor=0.5))
    told = train(model, *some(), recorder, recipe)
    assert recorder.lent == [(i, 16, 0.1 if i < 8 else 0.05) for i in range(16)]
    assert set(told.history[0].parts) == {"cross_entropy"}


def test_two_updates_of_an_algorithm_are_two_steps_of_sgd():
    """Against a loop written out with PyTorch's own optimiser, in the order that the trainer shows its batches."""
    x, y = some()
    batches = []

    class Spy(Recorder):
        def step(self, state, x, y, *, generator):
            batches.append((x, y))
            return super().step(state, x, y, generator=generator)

    model, other = (initialised(lambda: nn.Sequential(nn.Flatten(), nn.Linear(64, 10)), 1) for _ in range(2))
    recipe = Recipe(epochs=2, batch=16, lr=0.1, nesterov=True, clip=0.05)
    train(model, x, y, Spy(), recipe)
    optimiser = torch.optim.SGD(other.parameters(), lr=0.1, momentum=0.9, nesterov=True)
    for images, labels in batches:
        for _ in range(2):
            optimiser.zero_grad()
            nn.functional.cross_entropy(other(images), labels).backward()
            norm = torch.cat([weight.grad.flatten() for weight in other.parameters()]).norm()
            for weight in other.parameters():
                weight.grad *= min(1.0, 0.05 / float(norm))
            optimiser.step()
    for ours, theirs in zip(model.parameters(), other.parameters(), strict=True):
        assert (ours - theirs).norm() < 1e-4 * theirs.norm()


def test_adamw_takes_the_decay_apart():
    """With a gradient of zero a step only shrinks the weight by lr · decay."""

    class Nothing:
        def __call__(self, model, x, y, *, generator):
            return Loss(model(x).sum() * 0.0, {})

    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10, bias=False))
    before = model[1].weight.detach().clone()
    train(model, *some(20), Nothing(), Recipe(epochs=3, batch=20, optimiser="adamw", lr=0.1, weight_decay=0.5))
    assert torch.allclose(model[1].weight, before * 0.95**3)


def seen_dtypes(method_needs: bool, precision: str) -> set[torch.dtype]:
    seen = set()

    class Looking:
        needs_float32 = method_needs

        def __call__(self, model, x, y, *, generator):
            logits = model(x)
            seen.add(logits.dtype)
            return Loss(nn.functional.cross_entropy(logits, y), {})

    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    train(model, *some(), Looking(), Recipe(epochs=1, precision=precision))
    assert model[1].weight.dtype == torch.float32
    return seen


def test_forward_passes_are_in_the_precision_of_the_recipe():
    assert seen_dtypes(False, "float32") == {torch.float32}
    assert seen_dtypes(False, "bfloat16") == {torch.bfloat16}
    assert seen_dtypes(True, "bfloat16") == {torch.float32}


def test_a_look_without_graph_under_autocast_costs_no_gradient():
    """A weight cast under no_grad must not stand in for the one of the loss."""

    class Looking:
        def __call__(self, model, x, y, *, generator):
            with torch.no_grad():
                model(x)
            return Loss(nn.functional.cross_entropy(model(x), y), {})

    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    before = model[1].weight.detach().clone()
    train(model, *some(), Looking(), Recipe(epochs=1, precision="bfloat16"))
    assert not torch.equal(model[1].weight, before)


def test_low_precision_and_another_layout_learn_the_same():
    data = load_digits("train")
    for change in ({"precision": "bfloat16"}, {"channels_last": True}):
        model = initialised(SmallConvNet, 0)
        told = train(model, data.x, data.y, Natural(), replace(QUICK, epochs=5, validation=300, **change))
        assert told.history[-1].validation > 0.85
        if "channels_last" in change:
            assert model.state_dict()[next(k for k, v in model.state_dict().items() if v.dim() == 4)].is_contiguous(
                memory_format=torch.channels_last
            )


def test_the_best_weights_are_those_of_the_highest_validation_accuracy():
    told = short_run(replace(SHORT, epochs=8, validation=20))[1]
    accuracies = [epoch.validation for epoch in told.history]
    assert told.best_epoch == accuracies.index(max(accuracies)) + 1
    model = Noisy()
    model.load_state_dict(told.best)
    x, y = some()
    right = predict(model, x[told.validation_ids]).argmax(1) == y[told.validation_ids]
    assert float(right.float().mean()) == pytest.approx(max(accuracies))
    assert short_run(replace(SHORT, validation=0))[1].best_epoch is None


def test_the_quick_attack_is_told_and_weaker_threats_break_less():
    told = {eps: short_run(SHORT, watch=Watch(threat=Linf(eps=eps), samples=8))[1] for eps in (1e-6, 0.9)}
    for epoch, strong in zip(told[1e-6].history, told[0.9].history, strict=True):
        assert 0 <= strong.robust <= epoch.robust <= 1
    assert told[0.9].history[-1].robust < 0.2
    assert short_run()[1].history[0].robust is None


def test_without_samples_held_out_the_quick_attack_is_on_samples_of_the_training():
    told = [short_run(replace(SHORT, validation=0), watch=Watch(threat=Linf(eps=eps)))[1] for eps in (1e-6, 0.9)]
    for epoch, strong in zip(*(one.history for one in told), strict=True):
        assert epoch.validation is None
        assert epoch.robust > strong.robust
    assert told[0].history[-1].robust * 60 == pytest.approx(round(told[0].history[-1].robust * 60))
    assert told[0].best_epoch is None


def test_the_best_epoch_is_chosen_by_robustness_where_it_is_watched():
    def best(*pairs: tuple[float, float | None]) -> int:
        history: list[Epoch] = []
        found = 0
        for clean, robust in pairs:
            if is_best(Accuracies(clean, robust), history):
                found = len(history) + 1
            history.append(Epoch(len(history) + 1, {}, clean, robust))
        return found

    assert best((0.5, None), (0.7, None), (0.6, None), (0.7, None)) == 2
    assert best((0.5, 0.3), (0.6, 0.4), (0.9, 0.1)) == 2
    assert best((0.5, 0.4), (0.6, 0.4), (0.6, 0.4)) == 2
    assert not is_best(Accuracies(None, 0.9), [])


def test_the_weights_that_are_kept_are_the_most_robust_ones():
    told = short_run(replace(SHORT, epochs=8, validation=20), watch=Watch(threat=EPS))[1]
    ranks = [(epoch.robust, epoch.validation) for epoch in told.history]
    assert len(set(ranks)) > 2
    assert told.best_epoch == ranks.index(max(ranks)) + 1


@pytest.mark.parametrize("spec", EVERY)
def test_every_method_takes_low_precision_and_another_layout(spec: str):
    model = initialised(SmallConvNet, 0)
    recipe = replace(SHORT, epochs=1, lr=0.01, precision="bfloat16", channels_last=True, clip=1.0, mean_weights=0.9)
    before = model.state_dict()["layers.2.weight"].clone()
    train(model, *some(), catalog.build(EVERY[spec], spec), recipe)
    for weight in model.parameters():
        assert weight.dtype == torch.float32
        assert weight.isfinite().all()
    assert not torch.equal(model.state_dict()["layers.2.weight"], before)


def test_a_collapse_is_a_fall_by_more_than_a_fifth():
    def falls(*robust: float | None) -> bool:
        return collapsed([Epoch(i + 1, {}, 0.5, value) for i, value in enumerate(robust)])

    assert falls(0.4, 0.1)
    assert falls(0.1, 0.45, 0.0)
    assert not falls(0.4, 0.21)
    assert not falls(0.4)
    assert not falls(0.4, 0.1, 0.1)
    assert not falls(None, 0.1)
    assert not falls(0.4, None)


def test_reports_come_after_each_epoch_with_the_model_to_be_kept():
    reports = []

    def told(report) -> None:
        assert not report.model.training
        reports.append((report.epoch, report.best, report.model.state_dict()["body.3.weight"].clone()))

    model = initialised(Noisy, 5)
    done = train(model, *some(), Natural(), replace(SHORT, mean_weights=0.9), epoch_done=told)
    assert tuple(epoch for epoch, _, _ in reports) == done.history
    assert max(epoch.number for epoch, best, _ in reports if best) == done.best_epoch
    assert torch.equal(reports[-1][2], model.body[3].weight)


def test_images_are_kept_as_bytes_only_where_that_loses_nothing():
    levels = torch.randint(0, 256, (5000, 1, 2, 2), dtype=torch.uint8)
    whole = levels.float() / 255
    assert torch.equal(packed(whole), levels)
    assert torch.equal(unpacked(packed(whole)), whole)
    other = whole.clone()
    other[4999, 0, 1, 1] = 0.3
    assert packed(other) is other
    assert packed(whole.double()).dtype == torch.float64
    weights = []
    for x in (levels[:60], whole[:60]):
        model = initialised(lambda: nn.Sequential(nn.Flatten(), nn.Linear(4, 10)), 0)
        train(model, x, some()[1], Natural(), SHORT)
        weights.append(model[1].weight)
    assert torch.equal(*weights)


def test_the_time_limit_must_be_a_time():
    with pytest.raises(BadInput, match=r"'time_limit' must be a positive number of seconds\. Got -1"):
        short_run(time_limit=-1.0)
