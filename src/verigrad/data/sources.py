"""Where data sets are published, and the hashes by which their files are known."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from verigrad.core.errors import BadInput


@dataclass(frozen=True, kw_only=True)
class RemoteFile:
    """One file to fetch: its name, its size in bytes and its SHA-256 in hex."""

    name: str
    size: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class Source:
    """A data set that can be fetched.

    Args:
        name: as in the reference NAME:DIR.
        summary: what it is and who made it.
        files: all of them.
        mirrors: addresses under each of which all files lie, in the order in which they are tried.
        folder: of an archive, the folder in it that is kept; None where files are kept as they are.
        members: of an archive, the files of that folder that are kept, and their sizes in bytes.
    """

    name: str
    summary: str
    files: tuple[RemoteFile, ...]
    mirrors: tuple[str, ...]
    folder: str | None = None
    members: Mapping[str, int] = field(default_factory=dict)


# SHA-256 as TensorFlow Datasets lists them (url_checksums); the MD5 beside an archive is the publisher's.
SOURCES = (
    Source(
        name="mnist",
        summary="handwritten digits, 28×28, 60,000 + 10,000 (LeCun et al. 1998)",
        files=(
            RemoteFile(
                name="train-images-idx3-ubyte.gz",
                size=9_912_422,
                sha256="440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
            ),
            RemoteFile(
                name="train-labels-idx1-ubyte.gz",
                size=28_881,
                sha256="3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
            ),
            RemoteFile(
                name="t10k-images-idx3-ubyte.gz",
                size=1_648_877,
                sha256="8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
            ),
            RemoteFile(
                name="t10k-labels-idx1-ubyte.gz",
                size=4_542,
                sha256="f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
            ),
        ),
        mirrors=(
            "https://ossci-datasets.s3.amazonaws.com/mnist",
            "https://storage.googleapis.com/cvdf-datasets/mnist",
        ),
    ),
    Source(
        name="cifar10",
        summary="photographs of 10 classes, 32×32, 50,000 + 10,000, the binary version (Krizhevsky 2009)",
        files=(
            RemoteFile(  # MD5 c32a1d4ab5d03f1284b67883e8d87530
                name="cifar-10-binary.tar.gz",
                size=170_052_171,
                sha256="c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
            ),
        ),
        mirrors=(
            "https://www.cs.toronto.edu/~kriz",
            "https://cave.cs.toronto.edu/kriz",
            "https://storage.googleapis.com/s4tf-hosted-binaries/datasets/CIFAR10",
        ),
        folder="cifar-10-batches-bin",
        members=dict.fromkeys([*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin"], 30_730_000),
    ),
    Source(
        name="cifar100",
        summary="photographs of 100 classes, 32×32, 50,000 + 10,000, the binary version (Krizhevsky 2009)",
        files=(
            RemoteFile(  # MD5 03b5dce01913d631647c71ecec9e9cb8
                name="cifar-100-binary.tar.gz",
                size=168_513_733,
                sha256="58a81ae192c23a4be8b1804d68e518ed807d710a4eb253b1f2a199162a40d8ec",
            ),
        ),
        mirrors=("https://www.cs.toronto.edu/~kriz", "https://cave.cs.toronto.edu/kriz"),
        folder="cifar-100-binary",
        members={"train.bin": 153_700_000, "test.bin": 30_740_000},
    ),
)


def find_source(name: str) -> Source:
    """The source of that name.

    Raises:
        BadInput: there is none.
    """
    for source in SOURCES:
        if source.name == name:
            return source
    if name == "digits":
        raise BadInput("The digits come with scikit-learn: there is nothing to fetch. Use --data digits.")
    raise BadInput(f"verigrad data fetch knows {', '.join(one.name for one in SOURCES)}. Got {name!r}.")
