"""multitl on JAX: what differs by framework, and nothing else."""
