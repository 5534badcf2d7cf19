"""Layers written out on bare tensors, for networks derived a second time, and what every network has to hold."""

import copy
from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def double(model: nn.Module, seed: int = 0) -> nn.Module:
    """In eval mode and float64, with weights and running statistics that leave nothing out: no 0, 1 or symmetry."""
    generator = torch.Generator().manual_seed(seed)
    model = model.double().eval()

    def noise(tensor: Tensor) -> Tensor:
        return torch.randn(tensor.shape, dtype=torch.float64, generator=generator)

    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if name.endswith("running_var"):
                tensor.copy_(0.5 + noise(tensor).square())
            elif tensor.dim() == 1:
                tensor.copy_(0.3 * noise(tensor) + float(name.endswith("weight")))
            elif tensor.dim() > 1:
                tensor.copy_(noise(tensor) / tensor[0].numel() ** 0.5)
    return model


def images(*shape: int, seed: int = 1) -> Tensor:
    return torch.rand(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


class Tape:
    """The tensors of a model in the order in which they were made, taken one by one."""

    def __init__(self, model: nn.Module) -> None:
        self.left: Iterator[Tensor] = iter(
            [tensor for name, tensor in model.state_dict().items() if not name.endswith("num_batches_tracked")]
        )

    def take(self) -> Tensor:
        return next(self.left)

    def conv(self, x: Tensor, stride: int = 1, *, bias: bool = False) -> Tensor:
        kernel = self.take()
        return F.conv2d(x, kernel, self.take() if bias else None, stride, kernel.shape[-1] // 2)

    def norm(self, x: Tensor, *, weights: bool = True) -> Tensor:
        """Batch norm in evaluation."""

        def each(vector: Tensor) -> Tensor:
            return vector.reshape(-1, *[1] * (x.dim() - 2))

        scale, shift = (each(self.take()), each(self.take())) if weights else (1, 0)
        mean, var = each(self.take()), each(self.take())
        return (x - mean) / (var + 1e-5).sqrt() * scale + shift

    def basic(self, x: Tensor, stride: int) -> Tensor:
        """The post-activation basic block with a projection."""
        y = self.norm(self.conv(x, stride)).relu()
        y = self.norm(self.conv(y))
        return (y + (x if y.shape == x.shape else self.norm(self.conv(x, stride)))).relu()

    def linear(self, x: Tensor) -> Tensor:
        weight, bias = self.take(), self.take()
        return torch.einsum("bf,kf->bk", x, weight) + bias

    def ends(self) -> None:
        assert not list(self.left), "the second derivation left weights unused"


def close(got: Tensor, want: Tensor, tolerance: float = 1e-10) -> None:
    """Equal to within a part of the whole tensor's size."""
    assert got.shape == want.shape
    got, want = got.detach(), want.detach()
    assert float((got - want).norm()) <= tolerance * float(want.norm())


def parameters(make: Callable[[], nn.Module]) -> int:
    """The number of weights, counted without drawing any."""
    with torch.device("meta"):
        return sum(weight.numel() for weight in make().parameters())


def holds_for_any_network(make: Callable[[int], nn.Module]) -> None:
    """Logits for digits, MNIST and CIFAR sizes, the same from a copy and for one alone, and nothing left behind.

    make: builds the network for so many image channels, in eval mode, float64 and without coupling of batch-mates.
    """
    for channels, size in ((1, 8), (1, 28), (3, 32)):
        model = make(channels)
        before = copy.deepcopy(model.state_dict())
        x = images(3, channels, size, size)
        with torch.no_grad():
            logits = model(x)
            assert logits.shape == (3, 10)
            assert bool(logits.isfinite().all())
            close(copy.deepcopy(model)(x), logits)
            close(model(x[:1]), logits[:1], 1e-8)
        after = model.state_dict()
        assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
        assert bool(torch.autograd.grad(model(x.requires_grad_()).square().sum(), x)[0].any())
