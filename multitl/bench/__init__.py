"""`multitl bench`: contenders against each other on this machine. Start with jobs.py, then race.py and worker.py."""
