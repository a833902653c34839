"""Which part of every batch is this process's, and how do the processes of one training agree?

Outside of `toolchain.train.worker` there is one process, which is a crew of its own.
"""

from typing import Any, TypeVar

import msgspec
import torch
from torch import distributed, nn

from toolchain.errors import RecipeError

T = TypeVar("T")
_ROWS_EACH = 2
"""BatchNorm has no variance to divide by where a process gets but one row."""


class Crew(msgspec.Struct, frozen=True):
    """The processes that train together; every one steps through the same batches. rank 0 judges, says and keeps."""

    rank: int = 0
    size: int = 1

    @classmethod
    def current(cls) -> "Crew":
        if not (distributed.is_available() and distributed.is_initialized()):
            return cls()
        return cls(distributed.get_rank(), distributed.get_world_size())

    @property
    def leads(self) -> bool:
        return self.rank == 0

    def part(self, rows: torch.Tensor) -> torch.Tensor:
        """This process's share of a batch's row numbers."""
        return rows if self.size == 1 else rows.tensor_split(self.size)[self.rank]

    def wrap(self, network: nn.Module, device: torch.device) -> nn.Module:
        """The network whose gradients are the mean over all processes; its weights become those of rank 0.

        On GPUs BatchNorm sees the whole batch; torch has no such BatchNorm for CPUs, there each process sees its own share.
        """
        if self.size == 1:
            return network
        if device.type == "cuda":
            network = nn.SyncBatchNorm.convert_sync_batchnorm(network)  # type: ignore[no-untyped-call]
        return nn.parallel.DistributedDataParallel(
            network, device_ids=[torch.cuda.current_device()] if device.type == "cuda" else None
        )

    def agree(self, value: T) -> T:
        """Rank 0's value, in every process."""
        if self.size == 1:
            return value
        values = [value]
        distributed.broadcast_object_list(values, src=0)
        return values[0]

    def gather(self, value: T) -> list[T]:
        """Every process's value, by rank."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        distributed.all_gather_object(values, value)
        return values

    def require_rows(self, smallest_batch: int) -> None:
        if self.size > 1 and smallest_batch < _ROWS_EACH * self.size:
            raise RecipeError(
                f"train.processes = {self.size} leaves some of them fewer than {_ROWS_EACH} rows of a batch of {smallest_batch}; "
                "raise train.batch_size or take fewer processes"
            )


def has_batch_norm(network: nn.Module) -> bool:
    return any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in network.modules())
