"""One program on the devices of several processes: each computes with its own images, and all have the same state.

Outside of a step every array belongs to this process alone, so nothing else has to know of the others.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from multitl.contracts import Peers
from multitl.system.chatter import nothing_printed

AXIS = "peers"


def initialise(address: str, size: int, rank: int) -> None:
    """Before anything is computed. address: "host:port", where rank 0 is going to listen.

    Who is lost is noticed elsewhere (`distribution.channel`), earlier, and with a message: JAX's own watch would end
    the process.
    """
    if not jax.distributed.is_initialized():
        day = 86400  # seconds
        jax.config.update("jax_enable_preemption_service", False)  # it would swallow SIGTERM
        jax.distributed.initialize(
            address, size, rank, cluster_detection_method="deactivate", heartbeat_timeout_seconds=day
        )


def meet(peers: Peers) -> Mesh:
    """The devices, in a row, once they have spoken with each other."""
    first = {device.process_index: device for device in reversed(jax.devices())}
    mesh = Mesh(np.array([first[rank] for rank in range(peers.size)]), (AXIS,))
    add = jax.shard_map(
        lambda: jax.lax.psum(jax.numpy.float32(jax.lax.axis_index(AXIS)), AXIS),
        mesh=mesh,
        in_specs=(),
        out_specs=PartitionSpec(),
    )
    program = jax.jit(add).lower().compile()
    peers.barrier()  # Gloo gives up whoever comes half a minute after the first, as on a machine that is busy
    with nothing_printed():
        jax.block_until_ready(program())
    return mesh


class Sharing:
    """Between the first devices of some processes."""

    def __init__(self, peers: Peers) -> None:
        self._mesh, self._all, self._cut = meet(peers), PartitionSpec(), PartitionSpec(AXIS)

    def parallel(self, advance: Callable[..., Any]) -> Callable[..., Any]:
        """`Step._advance`, done by all at once; in it `AXIS` names the processes."""
        state, batch = self._all, self._cut
        return jax.shard_map(
            advance, mesh=self._mesh, in_specs=(state, state, batch, batch, batch, state), out_specs=state,
            check_vma=False,
        )  # fmt: skip

    def replicate(self, values: Any) -> Any:
        """A tree of what every process has alike."""
        sharding = NamedSharding(self._mesh, self._all)

        def spread(value: Any) -> jax.Array:
            here = jax.device_put(value, jax.local_devices()[0])
            return jax.make_array_from_single_device_arrays(np.shape(value), sharding, [here])

        return jax.tree.map(spread, values)

    def join(self, batch: Any) -> Any:
        """A tree of arrays (n, ...) of this process' images: those of all, one after the other."""
        sharding = NamedSharding(self._mesh, self._cut)
        return jax.tree.map(lambda one: jax.make_array_from_process_local_data(sharding, one), batch)

    def own(self, values: Any) -> Any:
        """Out of what all have alike."""
        return jax.tree.map(lambda value: value.addressable_data(0), values)
