"""multitl on TensorFlow: what differs by framework, and nothing else."""
