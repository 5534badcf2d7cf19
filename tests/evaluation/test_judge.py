"""The judge: what is shown, in which batch, and what counts."""

import pytest
import torch
from controls import Linear
from subjects import Double, subject
from torch import Tensor, nn

from verigrad.core.classifier import predict
from verigrad.core.threat import L2, Linf
from verigrad.evaluation.judge import judge, predictions, wrong
from verigrad.ledger.schema import Outcome


class Fickle(nn.Module):
    """Predictions that shift a little with the number of images in the batch, as rounding may shift them."""

    def __init__(self, threshold: float) -> None:
        super().__init__()
        self.threshold = threshold
        self.sizes: list[int] = []

    def forward(self, x: Tensor) -> Tensor:
        self.sizes.append(len(x))
        second = x.mean((1, 2, 3)) - self.threshold - 0.0003 * (20 - len(x))
        return torch.stack([torch.zeros_like(second), second], 1)


def test_a_witness_errs_in_the_batch_in_which_it_is_replayed():
    x = torch.full((20, 1, 2, 2), 0.5)
    x_adv = x + torch.linspace(-0.01, 0.01, 20)[:, None, None, None]
    y = torch.zeros(20, dtype=torch.int64)
    model = Fickle(0.5)
    judged = judge(model, x_adv, x, y, Linf(eps=0.1), coupled=False, stream="unit")
    assert len(model.sizes) > 2, "the control: the first look's errors do not all stand by themselves"
    assert model.sizes == sorted(set(model.sizes), reverse=True) or model.sizes[-1] == model.sizes[-2]
    assert judged.forwards == sum(model.sizes)
    rows = judged.broken.nonzero().flatten()
    again = predict(model, judged.x_adv[rows], batch=100)
    assert wrong(again, y[rows]).all()
    assert torch.equal(again, judged.logits[rows])
    assert torch.equal(judged.alone, judged.broken)


def test_images_are_rounded_to_float32_before_they_are_judged():
    of = subject()
    x_adv = (of.x.double() + 1e-9 + 0.03 * torch.ones_like(of.x, dtype=torch.float64)).clamp(max=1)
    judged = judge(of.model, x_adv, of.x, of.y, of.threat, coupled=False, stream="unit")
    assert judged.x_adv.dtype == torch.float32
    assert torch.equal(judged.x_adv, x_adv.float())
    assert torch.equal(judged.broken, of.model(x_adv.float()).argmax(1) != of.y)


@pytest.mark.parametrize("coupled", [False, True])
@pytest.mark.parametrize("threat", [Linf(eps=0.1), L2(eps=0.2)])
def test_refused_images_are_shown_clean(coupled, threat):
    x, y = torch.full((4, 2, 3, 3), 0.5), torch.zeros(4, dtype=torch.int64)
    model = Double(Linear(torch.ones(18), 9.0 + 1e-6))
    x_adv = x + 0.04
    x_adv[0, 0, 0, 0] = torch.nan
    x_adv[1] = 0.9
    x_adv[2, 1, 1, 1] = torch.inf
    judged = judge(model, x_adv, x, y, threat, coupled=coupled, stream="unit")
    nan, far = Outcome.NON_FINITE_INPUT, Outcome.OUTSIDE_THREAT
    assert judged.refused == (nan, far, nan, None)
    assert judged.broken.tolist() == [False, False, False, True]
    assert torch.equal(judged.x_adv[:3], x[:3])
    assert torch.equal(judged.distance.isnan(), torch.tensor([True, False, True, False]))


def test_predictions_of_logits_that_are_not_finite():
    logits = torch.tensor([[1.0, 3.0], [torch.nan, 0.0], [0.0, torch.inf], [2.0, 1.0]])
    y = torch.zeros(4, dtype=torch.int64)
    assert predictions(logits, y) == [(1, 2.0), (-1, None), (-1, None), (0, -1.0)]
    assert wrong(logits, y).tolist() == [True, False, False, False]


@pytest.mark.gpu
def test_an_accelerator_judges_the_same(tmp_path):
    from subjects import opened, right

    from verigrad.attacks.pgd import PGD
    from verigrad.evaluation.replay import replay
    from verigrad.evaluation.run import attempt

    told = []
    for device in ("cpu", "cuda"):
        of = subject(40, wrap=lambda model, device=device: model.to(device))
        state = torch.cuda.get_rng_state()
        with opened(tmp_path / f"{device}.sqlite", of) as ledger:
            done = attempt(of, ledger, stage="claim", name="a", attack=PGD(steps=4), samples=right(ledger))
            found = replay(of.model, of.x, of.y, of.threat, ledger, of.batch)
            assert (found.stood, found.fallen) == (len(done.broken), ())
            told.append((done.attempted, done.broken, done.forwards, done.backwards))
        assert torch.equal(torch.cuda.get_rng_state(), state)
    assert told[0] == told[1]
    assert told[0][1]
