"""What a minimal attack keeps of all that it met, and Adam with a time for each sample against torch's."""

import torch
from controls import Linear, linear_problem

from verigrad.attacks.adam import Adam
from verigrad.attacks.base import Probe
from verigrad.attacks.nearest import Nearest
from verigrad.attacks.tanh_space import TanhSpace
from verigrad.core.threat import L2


def test_only_errors_count_and_only_nearer_ones():
    x = torch.zeros(3, 1, 1, 2)
    nearest = Nearest(x, L2(eps=1.0))
    rows = torch.arange(3)
    nearest.note(x + 0.4, rows, torch.tensor([True, True, False]))
    nearest.note(x[1:] + 0.3, rows[1:], torch.tensor([True, False]))
    nearest.note(x + 0.9, rows, torch.tensor([True, True, False]))
    assert torch.equal(nearest.x_adv[:, 0, 0, 0], torch.tensor([0.4, 0.3, 0.0]))
    assert torch.allclose(nearest.distance, torch.tensor([0.4, 0.3, torch.inf]).double() * 2**0.5)


def test_the_result_holds_what_lies_inside_and_clean_images_else():
    x, y, w = linear_problem(2)
    x = torch.full_like(x, 0.5)
    model = Linear(w, float(w.sum()) / 2 + 0.1)
    near, far = x + 0.2 * w.sign().reshape(x[0].shape), x + 0.4 * w.sign().reshape(x[0].shape)
    nearest = Nearest(x, L2(eps=1.0))
    nearest.note(torch.stack([near[0], far[1]]), torch.arange(2), torch.tensor([True, True]))
    got = nearest.result(Probe(model, y))
    assert got.broken.tolist() == [True, False]
    assert torch.equal(got.x_adv, torch.stack([near[0], x[1]]))
    assert x.eq(0.5).all()


def test_adam_is_torchs_for_each_sample_from_its_own_start():
    torch.manual_seed(0)
    gradients = torch.randn(20, 2, 1, 2, 2, dtype=torch.float64)
    begins = (0, 7)
    ours, adam = torch.zeros(2, 1, 2, 2, dtype=torch.float64), Adam.start(gradients[0])
    for step, gradient in enumerate(gradients):
        adam = adam.restarted(torch.tensor([step == b for b in begins])).seen(gradient)
        ours = ours - 0.01 * adam.direction()
    for i, begin in enumerate(begins):
        theirs = torch.zeros(1, 2, 2, dtype=torch.float64, requires_grad=True)
        for step, gradient in enumerate(gradients[:, i]):
            if step in (0, begin):
                optimiser = torch.optim.Adam([theirs], lr=0.01)
            theirs.grad = gradient
            optimiser.step()
        assert torch.allclose(ours[i], theirs.detach(), rtol=0, atol=1e-12)


def test_tanh_space_gives_the_image_back_and_its_slope():
    x = torch.tensor([[-1.0, -0.3, 0.8, 3.0]], dtype=torch.float64)
    space = TanhSpace(bounds=(-1.0, 3.0))
    w = space.inverse(x).requires_grad_(True)
    assert torch.isfinite(w).all()
    image = space.image(w)
    assert (image - x).abs().max() < 4e-6
    (slope,) = torch.autograd.grad(image.sum(), w)
    assert torch.allclose(space.slope(image.detach()), slope, rtol=1e-6)
    assert (slope > 0).all()
