#!/usr/bin/env python3
"""Compares `moveout export` from an InfluxDB 3 with the floor: draining the same Flight stream to nowhere.

The server is the stand-in of the tests (tests/support/influxdb3.rs: DataFusion over tables in memory), in a
process of its own; a real one is slower. The floor does not even decode its messages, and is run at several
widths of window, of which the fastest counts. Runs alternate; CPU is user + system time of the client.

  cargo build --release && benches/compare_flight.py --rows 2000000 --days 30 --runs 5
"""
import argparse, json, os, shutil, statistics, subprocess, sys, tempfile, time
from pathlib import Path

from built import bench_program

HERE = Path(__file__).resolve().parent


def measured(command):
    """Wall, CPU and peak memory of a command that must succeed, and what it printed."""
    began = time.monotonic()
    process = subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    out, err = process.stdout.read(), process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    wall = time.monotonic() - began
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"{command}: exit status {process.returncode}\n{err.decode()}")
    return {"wall": wall, "cpu": usage.ru_utime + usage.ru_stime, "rss": usage.ru_maxrss / 1024}, out


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--rows", type=int, default=2_000_000, help="default 2000000")
    add("--days", type=int, default=30, help="that they are spread over; default 30")
    add("--runs", type=int, default=5, help="default 5")
    add("--moveout", type=Path, default=HERE.parent / "target/release/moveout", metavar="FILE")
    add("--before", type=Path, metavar="FILE", help="an older moveout, in the same rounds")
    args = parser.parse_args()
    program = bench_program()
    with tempfile.TemporaryDirectory(prefix="moveout-bench-") as folder:
        server = subprocess.Popen([program, "serve-influxdb3", str(args.rows), str(args.days)],
                                  stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        try:
            url = server.stdout.readline().decode().strip()

            def floor(width):
                run, _ = measured([program, "drain", url, args.days, width])
                return run

            def moveout(concurrency, program=args.moveout):
                archive = Path(folder) / "archive"
                shutil.rmtree(archive, ignore_errors=True)
                run, out = measured([program, "export", "--json", "--source", f"influxdb+{url}", "--archive",
                                     archive, "--concurrency", concurrency])
                result = json.loads(out)
                if result["rows_total"] != args.rows:
                    sys.exit(f"{result['rows_total']} rows instead of {args.rows}")
                return run | {"bytes": result["bytes_total"]}

            def encode():
                files = sorted((Path(folder) / "archive").rglob("data/**/*.parquet"))
                runs = [json.loads(measured([program, "encode", file, "0", "1"])[1]) for file in files]
                return {key: sum(run[key] for run in runs) for key in ("wall", "cpu", "bytes")} | {"rss": 0}

            contestants = {f"floor, {w} d a query": (lambda w=w: floor(w)) for w in (1, 4, args.days)}
            contestants |= {"moveout -c 1": lambda: moveout(1), "encode, from memory": encode,
                            "moveout -c 4": lambda: moveout(4)}
            if args.before:
                contestants |= {f"before -c {n}": lambda n=n: moveout(n, args.before) for n in (1, 4)}
            runs = {name: [] for name in contestants}
            for _ in range(args.runs):
                for name, run in contestants.items():
                    runs[name].append(run())
        finally:
            server.stdin.close()
            server.wait()
    print(f"{args.rows:,} rows over {args.days} days, medians of {args.runs} alternating runs")
    print(f"{'':24}{'wall s':>8}{'rows/s':>12}{'CPU s/M':>9}{'RSS MiB':>9}{'bytes/row':>11}")
    median = {name: statistics.median(run["wall"] for run in mine) for name, mine in runs.items()}
    for name, mine in runs.items():
        size = f"{mine[0]['bytes'] / args.rows:11.2f}" if "bytes" in mine[0] else ""
        print(f"{name:24}{median[name]:8.2f}{args.rows / median[name]:12,.0f}"
              f"{statistics.median(run['cpu'] for run in mine) / args.rows * 1e6:9.2f}"
              f"{max(run['rss'] for run in mine):9.0f}{size}")
    best = min((name for name in runs if name.startswith("floor")), key=median.get)
    bound = [max(a["wall"], b["wall"]) for a, b in zip(runs[best], runs["encode, from memory"])]
    for name in ("moveout -c 1", "moveout -c 4"):
        ratio = statistics.median(run["wall"] / least for run, least in zip(runs[name], bound))
        print(f"{name} / max({best}; encode), paired by round, median: {ratio:.3f}")


if __name__ == "__main__":
    sys.exit(main())
