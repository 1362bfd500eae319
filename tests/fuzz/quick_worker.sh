#!/bin/sh
# Stands for `python -P -m multitl.files.hdf5_worker ARGUMENT...` in a long campaign: asks quick_workers.py for a fork.
here=$MULTITL_FUZZ_WORKERS
mkfifo "$here/answer.$$"
exec 3>&1 4>&2  # 1 is another while this shell writes elsewhere
printf '%s\037' "$$" "$MULTITL_FUZZ_FOLDER" "$@" > "$here/ask"
echo > "$here/ask"
read -r status < "$here/answer.$$"
rm "$here/answer.$$"
[ "$status" -ge 0 ] || kill "$status" $$
exit "$status"
