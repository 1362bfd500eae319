"""multitl on PyTorch: what differs by framework, and nothing else."""
