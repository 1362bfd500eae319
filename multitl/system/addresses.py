"""What an address of a network says of who can reach it."""

from __future__ import annotations

import ipaddress


def is_loopback(address: str) -> bool:
    """Whether an address, in numbers, leads to the machine that it is used on. Raises ValueError for a name."""
    return ipaddress.ip_address(address.partition("%")[0]).is_loopback
