"""Several processes that train one network, as torchrun starts them: each sees its part of every batch.

Weights are the same in all of them: they begin equal, and DistributedDataParallel averages their gradients. Buffers
(the running statistics of batch norm) go their own ways within an epoch and are averaged at its end.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from verigrad.core.errors import BadInput


class Averaged(nn.Module):
    """A network whose gradients are averaged over the processes.

    Where weights are frozen or no graph is made, as in attacks, it is the bare network.
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        device = next(module.parameters()).device
        devices = [device.index] if device.type == "cuda" else None
        self.shared = DistributedDataParallel(module, device_ids=devices, forward_sync_buffers=False)

    def forward(self, x: Tensor) -> Tensor:
        averaged = torch.is_grad_enabled() and any(weight.requires_grad for weight in self.parameters())
        return self.shared(x) if averaged else self.shared.module(x)

    def alone(self) -> AbstractContextManager[None]:
        """Gradients of passes inside it stay in this process."""
        return self.shared.no_sync()


@dataclass(frozen=True, kw_only=True)
class Processes:
    """Which process this is of how many; one alone by default.

    Args:
        rank: from 0 up. Process 0 writes files.
        count: how many there are.
        local: which it is on its machine: the number of its GPU.
        control: the group in which Python objects travel; None means the default group.
    """

    rank: int = 0
    count: int = 1
    local: int = 0
    control: Any = None

    def replica(self, module: nn.Module) -> nn.Module:
        """What a loss calls: the module itself, or a wrapper that averages gradients."""
        return module if self.count == 1 else Averaged(module)

    def total(self, values: Tensor) -> Tensor:
        """The sum over all processes."""
        if self.count > 1:
            dist.all_reduce(values)
        return values

    def agreed(self, value: Any) -> Any:
        """The value of process 0."""
        if self.count == 1:
            return value
        holder = [value]
        dist.broadcast_object_list(holder, src=0, group=self.control)
        return holder[0]

    def gathered(self, value: Any) -> list[Any]:
        """The values of all processes in process 0, in their order; an empty list elsewhere."""
        if self.count == 1:
            return [value]
        found = [None] * self.count if self.rank == 0 else None
        dist.gather_object(value, found, dst=0, group=self.control)
        return found or []

    def average_buffers(self, module: nn.Module) -> None:
        """Gives all processes the mean of their floating-point buffers, and the other buffers of process 0."""
        if self.count == 1:
            return
        for buffer in module.buffers():
            if buffer.is_floating_point():
                dist.all_reduce(buffer)
                buffer.div_(self.count)
            else:
                dist.broadcast(buffer, src=0)


ALONE = Processes()


@contextmanager
def joined() -> Iterator[Processes]:
    """The processes that torchrun has started, for the length of a block; one alone without torchrun.

    Raises:
        BadInput: several processes on a machine with fewer GPUs than processes, if it has any.
    """
    if "RANK" not in os.environ or "MASTER_ADDR" not in os.environ:
        yield ALONE
        return
    local = int(os.environ.get("LOCAL_RANK", 0))
    gpus = torch.cuda.device_count()
    if gpus:
        if local >= gpus:
            raise BadInput(f"Process {local} has no GPU of its own: there are {gpus}. Lower --nproc-per-node.")
        torch.cuda.set_device(local)
    dist.init_process_group("nccl" if gpus else "gloo")
    try:
        control = dist.new_group(backend="gloo") if gpus else None
        yield Processes(rank=dist.get_rank(), count=dist.get_world_size(), local=local, control=control)
    finally:
        # Wrappers hold the group in cycles; its threads must have ended before the interpreter does.
        gc.collect()
        dist.destroy_process_group()


def without_averaging(model: nn.Module) -> AbstractContextManager[None]:
    """What `State.alone` is."""
    return model.alone() if isinstance(model, Averaged) else nullcontext()
