"""Builds the bench of pipeline.rs, and says where it is."""
import functools, json, subprocess
from pathlib import Path


@functools.cache
def bench_program():
    command = ["cargo", "build", "--release", "--bench", "pipeline", "--message-format", "json"]
    here = Path(__file__).resolve().parent
    lines = subprocess.run(command, cwd=here.parent, check=True, stdout=subprocess.PIPE).stdout.splitlines()
    built = [json.loads(line) for line in lines]
    return next(b["executable"] for b in built if b.get("target", {}).get("name") == "pipeline" and b.get("executable"))
