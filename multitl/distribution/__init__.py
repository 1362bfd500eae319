"""The processes that work on one run together: who they are, and what they tell each other. Comes in: the environment
that torchrun, Slurm, Kubernetes or an engine of ours gave this process; goes out: a `contracts.Peers`. Read `group.py`
first, then `peers.py`. One process alone opens nothing, waits for nothing and pays nothing.
"""

__all__ = ["devices", "group", "joining", "peers"]
