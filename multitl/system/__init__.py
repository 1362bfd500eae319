"""What the machine and its processes are made to do, so that nothing else has to know: atomic writes, locks, temporary
folders, child processes, signals, threads, memory, progress bars. Comes in: paths, commands; goes out: files, ended
processes. Read `writing.py` first, then `children.py`. Nothing here knows of models.
"""

__all__ = [
    "addresses",
    "budgets",
    "cache",
    "chatter",
    "children",
    "flock",
    "hashes",
    "heap",
    "hiding",
    "interrupts",
    "latency",
    "messages",
    "paths",
    "printing",
    "progress",
    "regular_files",
    "scratch",
    "session",
    "sizes",
    "swapping",
    "threads",
    "workers",
    "writing",
]
