"""Fuzzing of every reader of files that may be anyone's: `python -m tests.fuzz READER --mutants 20000`.

Seeds are small valid files (seeds/, written by seeds.py). `mutants.py` damages one of them, by (seed, index) alone,
with what the `*_edits.py` files offer. `server.py` holds a process that has imported a reader and forks for every
mutant; the fork has limits of time and memory, and an audit hook (guard.py) that ends it when it runs code, starts a
process, opens a socket or writes outside its own folder. `campaign.py` counts, and keeps what failed.
"""
