#!/usr/bin/env python3
"""Compares moveout's Parquet writer with those of DuckDB and pyarrow on the same rows, from memory, and
prints how much memory one chunk needs as it grows.

A row is a time, 3 tags and 8 floats (benches/pipeline.rs says which kinds there are). Each writer has
the rows in its own form in memory before the clock starts: moveout Arrow batches, pyarrow a table with
dictionaries, DuckDB a table. All write zstd at their default level, moveout to nowhere (hashed, and with the
statistics of a commit), the others to a file in memory (/dev/shm) where there is one. Runs alternate.

  cargo build --release && benches/compare_encode.py             the writers
  benches/compare_encode.py --memory 1 5 20                      peak memory of one chunk: GiB of Arrow rows,
                                                                 to disk and to an S3 server on this machine

Needs Python 3.11 with duckdb and pyarrow: target/venv/bin/python has them after .ci/setup.
"""
import argparse, json, os, resource, statistics, subprocess, sys, tempfile, time
from pathlib import Path

from built import bench_program

HERE = Path(__file__).resolve().parent
ROW_BYTES = 88  # of Arrow: 8 of time, 3 indices of 4, 8 floats of 8, and the bits of validity


def timed(work, out):
    def cpu():
        used = resource.getrusage(resource.RUSAGE_SELF)
        return used.ru_utime + used.ru_stime
    began, before = time.monotonic(), cpu()
    work()
    return {"wall": time.monotonic() - began, "cpu": cpu() - before, "bytes": os.path.getsize(out)}


def pyarrow_writer(rows, out):
    import pyarrow.parquet as pq
    schema = pq.read_schema(rows)
    tags = [f.name for f in schema if str(f.type).startswith("dictionary")]
    table = pq.read_table(rows, read_dictionary=tags)
    return lambda: timed(lambda: pq.write_table(table, out, compression="zstd"), out)


def duckdb_writer(rows, out, threads):
    import duckdb
    link = duckdb.connect(config={"threads": threads})
    link.execute(f"CREATE TABLE t AS FROM '{rows}'")
    return lambda: timed(lambda: link.execute(f"COPY t TO '{out}' (FORMAT parquet, COMPRESSION zstd)"), out)


def writers(args, program, folder):
    for kind in args.kinds:
        rows, out = folder / f"{kind}.parquet", folder / "out.parquet"
        subprocess.run([program, "encode", kind, str(args.rows), "1", rows], check=True, stdout=subprocess.DEVNULL)

        def moveout(cores):
            def run():
                line = subprocess.check_output([program, "encode", rows, "0", "1"],
                                               env=os.environ | {"CORES": str(cores)})
                return json.loads(line)
            return run
        both = os.cpu_count()
        contestants = {f"moveout, {both} cores": moveout(both), "moveout, 1 core": moveout(1),
                       "pyarrow": pyarrow_writer(rows, out),
                       f"DuckDB, {both} threads": duckdb_writer(rows, out, both),
                       "DuckDB, 1 thread": duckdb_writer(rows, out, 1)}
        runs = {name: [] for name in contestants}
        for _ in range(args.runs):
            for name, run in contestants.items():
                runs[name].append(run())
        print(f"\n{kind}: {args.rows:,} rows, medians of {args.runs} alternating runs")
        print(f"{'':22}{'wall s':>8}{'rows/s':>12}{'CPU s/M':>9}{'bytes/row':>11}{'wall to ours':>14}{'size':>7}")
        ours = runs[next(iter(runs))]
        for name, mine in runs.items():
            def median(key):
                return statistics.median(r[key] for r in mine)
            wall = statistics.median(a["wall"] / b["wall"] for a, b in zip(mine, ours))
            print(f"{name:22}{median('wall'):8.2f}{args.rows / median('wall'):12,.0f}"
                  f"{median('cpu') / args.rows * 1e6:9.2f}{median('bytes') / args.rows:11.2f}"
                  f"{wall:13.2f}x{median('bytes') / ours[0]['bytes']:6.2f}x")


def memory(args, program, folder):
    print(f"\none chunk of {args.kinds[0]} rows, written, read back and hashed: peak memory of the whole process")
    print(f"{'GiB of Arrow':>13}{'rows':>13}{'to':>6}{'wall s':>8}{'CPU s/M':>9}{'GB written':>12}{'peak MiB':>10}")
    for size in args.memory:
        rows = int(size * 2**30 / ROW_BYTES)
        for kind in ("disk", "S3"):
            server, env, place = None, dict(os.environ), folder / "archive"
            if kind == "S3":
                server = subprocess.Popen([program, "serve-s3"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                          env=env | {"TMPDIR": str(folder)})
                answer = json.loads(server.stdout.readline())
                env |= answer["env"]
                place = f"{answer['url']}/bench"
            try:
                line = subprocess.check_output([program, "chunk", args.kinds[0], str(rows), place], env=env)
            finally:
                if server:
                    server.stdin.close()
                    server.wait()
                subprocess.run(["rm", "-rf", folder / "archive"], check=True)
            run = json.loads(line)
            print(f"{size:13g}{rows:13,}{kind:>6}{run['wall']:8.1f}{run['cpu'] / rows * 1e6:9.2f}"
                  f"{run['bytes'] / 1e9:12.2f}{run['peak_mib']:10}", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--rows", type=int, default=2_000_000, help="default 2000000")
    add("--runs", type=int, default=5, help="default 5")
    add("--kinds", nargs="+", default=["gauges", "mixed", "entropy", "gauges-by-time"], metavar="KIND")
    add("--memory", nargs="+", type=float, metavar="GIB", help="print peak memory instead")
    args = parser.parse_args()
    program = bench_program()
    memory_disk = Path("/dev/shm")
    base = memory_disk if memory_disk.is_dir() and not args.memory else None
    with tempfile.TemporaryDirectory(prefix="moveout-bench-", dir=base) as folder:
        (memory if args.memory else writers)(args, program, Path(folder))


if __name__ == "__main__":
    sys.exit(main())
