"""What the processes of a run do together on the host: `contracts.Peers`, alone and through a `Channel`."""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from multitl.distribution.channel import Channel, Loss
from multitl.system.addresses import is_loopback

if TYPE_CHECKING:  # whoever is alone needs no numpy here
    import numpy as np


class Alone:
    """Nobody else: every call answers at once."""

    rank, size = 0, 1

    def gather(self, data: bytes) -> list[bytes]:
        return [data]

    def broadcast(self, data: bytes) -> bytes:
        return data

    def first(self, work: Callable[[], Any]) -> Any:
        return work()

    def sum(self, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        return list(arrays)

    def mean(self, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        return list(arrays)

    def broadcast_arrays(self, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        return list(arrays)

    def rows(self, array: np.ndarray) -> np.ndarray:
        return array

    def share(self, indices: Any) -> Any:
        return indices

    def barrier(self) -> None:
        """Nobody to wait for."""

    def endpoints(self) -> list[str]:
        return []


ALONE_PEERS = Alone()


class Several:
    """This process and others. All of it goes through rank 0, which is meant for decisions and figures, of up to some
    megabytes: gradients go from device to device.
    """

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self.rank, self.size = channel.group.rank, channel.group.size

    def gather(self, data: bytes) -> list[bytes]:
        return msgspec.msgpack.decode(self._channel.exchange(data, msgspec.msgpack.encode), type=list[bytes])

    def broadcast(self, data: bytes) -> bytes:
        return self._channel.broadcast(data)

    def first(self, work: Callable[[], Any]) -> Any:
        if self.rank:
            return msgspec.msgpack.decode(self._channel.broadcast(b""))
        value = work()
        self._channel.broadcast(msgspec.msgpack.encode(value, enc_hook=_plain))
        return value

    def sum(self, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        """In double precision where they have less, by rank: the same bits for any network."""
        import numpy as np

        def add(parts: list[bytes]) -> bytes:
            total = np.frombuffer(parts[0], "float64").copy()
            for part in parts[1:]:
                total += np.frombuffer(part, "float64")
            return total.tobytes()

        flat = np.concatenate([np.asarray(array, "float64").ravel() for array in arrays])
        total = np.frombuffer(self._channel.exchange(flat.tobytes(), add), "float64")
        cuts = np.cumsum([np.size(array) for array in arrays])[:-1]
        return [
            part.reshape(np.shape(array)).astype(np.asarray(array).dtype)
            for part, array in zip(np.split(total, cuts), arrays, strict=True)
        ]

    def mean(self, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        return [total / self.size for total in self.sum(arrays)]

    def broadcast_arrays(self, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        packed = msgspec.msgpack.encode(list(map(_pack, arrays))) if self.rank == 0 else b""
        told = self._channel.broadcast(packed)
        return list(arrays) if self.rank == 0 else list(map(_unpack, msgspec.msgpack.decode(told)))

    def rows(self, array: np.ndarray) -> np.ndarray:
        import numpy as np

        packed = self.gather(msgspec.msgpack.encode(_pack(array)))
        parts = [_unpack(msgspec.msgpack.decode(part)) for part in packed]
        return np.concatenate([part for part in parts if len(part)] or parts[:1])

    def share(self, indices: Any) -> Any:
        count = len(indices)
        return indices[count * self.rank // self.size : count * (self.rank + 1) // self.size]

    def barrier(self) -> None:
        self.gather(b"")

    def endpoints(self) -> list[str]:
        host = self._channel.own_host
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
            probe.bind((host, 0))
            port = probe.getsockname()[1]
        own = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        return _reachable([other.decode() for other in self.gather(own.encode())])

    def check(self, wait: float = 0.0) -> None:
        """Raises the GroupError of a group that is no more, if that shows within so many seconds."""
        self._channel.check(wait)

    def leave(self, failure: Loss | None = None) -> None:
        """failure: what the others are to hear; without one all are waited for."""
        if not failure:
            self.barrier()
        self._channel.close(failure)

    def let_go(self) -> None:
        """See `Channel.let_go`."""
        self._channel.let_go()


def _plain(value: Any) -> Any:
    """A number of NumPy's as one of Python's."""
    import numpy as np

    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"{type(value).__name__} is no value of JSON's: {value!r:.60}")


def _pack(array: np.ndarray) -> tuple[str, tuple[int, ...], bytes]:
    return array.dtype.str, array.shape, array.tobytes()


def _unpack(packed: Sequence[Any]) -> np.ndarray:
    """In memory of its own."""
    import numpy as np

    kind, shape, data = packed
    return np.frombuffer(data, kind).reshape(shape).copy()


def _reachable(endpoints: list[str]) -> list[str]:
    """ "host:port" by rank: whoever reached rank 0 by a loopback address is on its machine, which others know by
    another, unless all are there.
    """
    first, *others = endpoints
    host = first.rpartition(":")[0]
    if is_loopback(host.strip("[]")):
        return endpoints
    parted = [other.rpartition(":") for other in others]
    return [first, *(f"{host if is_loopback(own.strip('[]')) else own}:{port}" for own, _, port in parted)]
