#!/bin/sh
# submit.sh SHARDS: submits an export in so many shards and the job that seals the archive after them, and prints the
# number of that job. Run it in the folder with moveout.toml, which all nodes must see.
set -eu
shards=$1
here=$(cd "$(dirname "$0")" && pwd)
array=$(sbatch --parsable --array="0-$((shards - 1))" "$here/export.sbatch" "$shards")
sbatch --parsable --dependency="afterany:${array%%;*}" "$here/seal.sbatch"
