"""What a user would use instead of `multitl finetune`, for benchmarks/recipes.py: one program a rival, each with the
same command line (see answering.py), the same pixels and the weights of the same network.
"""
