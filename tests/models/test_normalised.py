"""A reference that normalises: written, read back, and loaded, with the weights inside."""

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from verigrad.core.errors import BadInput
from verigrad.models.inspecting import weights_hash
from verigrad.models.loading import load_model, save_checkpoint
from verigrad.models.networks.small import SmallConvNet
from verigrad.models.normalised import Normalised, Wrapped, normalising, read_normalised

X = torch.rand(5, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def test_it_is_the_formula_channel_by_channel():
    model = Normalised(nn.Identity(), (0.5, 0.4, 0.3), (0.2, 0.3, 0.4))
    x = X.double().numpy()
    expected = np.stack([(x[:, 0] - 0.5) / 0.2, (x[:, 1] - 0.4) / 0.3, (x[:, 2] - 0.3) / 0.4], 1)
    assert np.linalg.norm(model(X).double().numpy() - expected) < 1e-6 * np.linalg.norm(expected)


def test_one_number_is_for_all_channels():
    assert torch.equal(
        Normalised(nn.Identity(), (0.5,), (0.2,))(X), Normalised(nn.Identity(), (0.5,) * 3, (0.2,) * 3)(X)
    )


def test_grey_images_are_not_made_colour_images():
    with pytest.raises(BadInput, match="normalises 3 channels, but the images have 1"):
        Normalised(nn.Identity(), (0.5,) * 3, (0.2,) * 3)(X[:, :1])


@pytest.mark.parametrize(
    ("ref", "text", "mean", "std"),
    [
        ("a.b:make", "0.5/0.25", (0.5,), (0.25,)),
        (
            'odd "name" (1)=2,',
            "0.4914,0.4822,0.4465/0.247,0.2435,0.2616",
            (0.4914, 0.4822, 0.4465),
            (0.247, 0.2435, 0.2616),
        ),
        ("hf:some/folder", " -1e-05, 3 /1e-9,2", (-1e-5, 3.0), (1e-9, 2.0)),
        ("a\\b\n", "0/0.00392157", (0.0,), (0.00392157,)),
    ],
)
def test_what_is_written_is_read_back(ref: str, text: str, mean: tuple[float, ...], std: tuple[float, ...]):
    assert read_normalised(normalising(ref, text)) == Wrapped(ref, mean, std)


def test_a_name_of_the_catalog_needs_no_quotes():
    wrapped = read_normalised("normalised:module=sonet(channels=8,blocks=1-1-1-1),mean=0.5,std=(0.25)")
    assert wrapped == Wrapped("sonet:channels=8,blocks=1-1-1-1", (0.5,), (0.25,))


@pytest.mark.parametrize("ref", ["normalised", "normalised:make", "small-conv:channels=4", "a.b:c", "runs/normalised"])
def test_other_references_are_none(ref: str):
    assert read_normalised(ref) is None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "0.5",
        "/",
        "0.5/",
        "/0.5",
        "0.5/x",
        "0.5//0.5",
        "0.5,,0.5/1,1,1",
        "0.5/0",
        "0.5/-1",
        "nan/1",
        "0.5/inf",
        "1,2/1",
    ],
)
def test_what_is_no_mean_and_std_is_told(text: str):
    with pytest.raises(BadInput, match=r"MEAN/STD|'std' positive|for each channel") as told:
        normalising("a.b:c", text)
    assert "\n" not in str(told.value)


@pytest.mark.parametrize(
    "ref",
    [
        "normalised:module=small-conv",
        "normalised:mean=0.5,std=0.2",
        'normalised:module="a:b",mean=0.5,std=0.2,more=1',
        'normalised:module="a:b",mean=x,std=0.2',
        'normalised:module="a:b",mean=0.5,std="0.2"',
        'normalised:module="a:b,mean=0.5,std=0.2',
        "normalised:module=(1,2),mean=0.5,std=0.2",
        "normalised:module=a:b,mean=0.5,std=0.2",
    ],
)
def test_what_cannot_be_read_is_told_with_the_form(ref: str):
    with pytest.raises(BadInput, match="A normalised model is written normalised:mean=") as told:
        load_model(ref)
    assert "\n" not in str(told.value)


def test_weights_are_those_of_the_model_inside(tmp_path):
    net = SmallConvNet(in_channels=3, channels=4).eval()
    save_file(net.state_dict(), tmp_path / "w.safetensors")
    loaded = load_model(
        "normalised:module=small-conv(channels=4,in_channels=3),mean=0.5,std=0.25", tmp_path / "w.safetensors"
    )
    assert not loaded.training
    with torch.no_grad():
        expected = net((X - 0.5) / 0.25)
        assert (loaded(X) - expected).norm() < 1e-5 * expected.norm()
    assert weights_hash(loaded) != weights_hash(net)


def test_any_reference_can_be_inside_however_long_its_path(tmp_path):
    net = SmallConvNet(channels=4)
    folder = tmp_path / ("x" * 120) / ("y" * 120) / "saved"
    save_checkpoint("small-conv:channels=4", net, folder)
    one, other = (load_model(normalising(str(folder), text)) for text in ("0.5/0.25", "0.5/0.24"))
    assert weights_hash(one.module) == weights_hash(net)
    assert weights_hash(one) != weights_hash(other)


def test_a_second_normalisation_is_refused(tmp_path):
    save_checkpoint(
        {"name": "normalised", "kwargs": {"mean": [0.5], "std": [0.25], "module": "small-conv"}},
        Normalised(SmallConvNet(), (0.5,), (0.25,)),
        tmp_path / "saved",
    )
    with pytest.raises(BadInput, match=r"normalises its input already: \(x - \[0.5\]\) / \[0.25\]") as told:
        load_model(normalising(str(tmp_path / "saved"), "0.1/0.3"))
    assert "\n" not in str(told.value)
