"""Gradients of several processes, as one tensor that they all add to before the optimizer sees it.

Not `DistributedDataParallel`: it holds on to the tensors that the weights had when it was made, and where these are
replaced (`channels_last.py`) the losses are wrong without a word.
"""

from __future__ import annotations

import datetime
from collections.abc import Sequence

import torch

DAY = datetime.timedelta(days=1)  # who is lost is noticed elsewhere: see `distribution.channel`


def initialise(address: str, size: int, rank: int) -> None:
    """address: "host:port", where rank 0 is going to listen."""
    import torch.distributed as dist

    if not dist.is_initialized():
        kind = "nccl" if torch.cuda.is_available() else "gloo"
        dist.init_process_group(kind, init_method=f"tcp://{address}", world_size=size, rank=rank, timeout=DAY)


def share_mean(tensors: Sequence[torch.Tensor | None], size: int) -> None:
    """Put into each tensor its mean over `size` processes. None, of a weight that has no gradient, stays."""
    import torch.distributed as dist

    dense = [one for one in tensors if one is not None]
    flat = torch.cat([one.reshape(-1) for one in dense])
    dist.all_reduce(flat)
    flat /= size
    for one, mean in zip(dense, flat.split([one.numel() for one in dense]), strict=True):
        one.copy_(mean.view(one.shape))
