#!/bin/sh
# submit.sh QUEUE: registers both definitions, submits an export in 8 shards and the job that seals the archive after them,
# and prints the id of that job. `submit.sh QUEUE seal` submits the sealing job alone: AWS Batch does not start it where a
# shard has failed, but whatever the shards have done, it does what is left or says what is missing.
set -eu
queue=$1
cd "$(dirname "$0")"
# The number after the slash in export.json, which stays the same while the export goes on.
shards=8

submit() { # NAME, further arguments
    name=$1
    shift
    aws batch register-job-definition --cli-input-json "file://$name.json" >/dev/null
    aws batch submit-job --job-name "moveout-$name" --job-queue "$queue" --job-definition "moveout-$name" \
        --query jobId --output text "$@"
}

if [ "${2-}" = seal ]; then
    submit seal
else
    array=$(submit export --array-properties "size=$shards")
    submit seal --depends-on "jobId=$array"
fi
