#!/usr/bin/env python3
"""Compares `moveout verify` with what the same check costs by hand, side by side on this machine.

What it does, in this order:
  1. makes a virtual environment in target/bench-venv-verify and installs DuckDB into it;
  2. exports two archives: `few`, the rows of a PostgreSQL in a few large files, and `many`, as many small files as
     --tables says, from a file of line protocol;
  3. runs the contestants in turn, --runs rounds, each as a process of its own:
       sha256sum     xargs -P2 sha256sum on all data files
       hash-only     moveout verify --hash-only
       DuckDB 2      DuckDB with 2 threads reads all columns of the same files
       verify        moveout verify, all of it
  4. starts a PostgreSQL, a MariaDB and an InfluxDB 1.x of its own, fills and exports each, and runs in turn:
       by hand       the aggregates of all columns (of InfluxDB: the counts of all fields) in one query
       proof         moveout verify --quick --against-source
       export        moveout export into a new archive
       deep          moveout verify --quick --against-source --deep
     The servers end with their contest, and their folders are removed.

Needs: Linux, Python 3.11, moveout built with `cargo build --release`; a server that is not installed is said, and left out.
CPU is user + system time of the contestant's processes, server CPU that of all server processes meanwhile, RSS the
largest ru_maxrss. A proof that is not safe, and a fault in an archive, are failures. Ratios are paired by round.

  benches/compare_verify.py --rows 2000000 --runs 5 --json target/compare_verify.json
  benches/compare_verify.py --only many,influxd
"""
import argparse, json, os, platform, shutil, signal, subprocess, sys, tempfile, types
from pathlib import Path

import compare_influxdb, compare_mariadb, compare_postgres, contest, relational
from contest import Failure, say

HERE = Path(__file__).resolve().parent
PARTS = ["few", "many", "postgres", "mariadb", "influxd"]
LABELS = {"sha": "sha256sum, 2 at once", "hash": "moveout --hash-only", "duckdb": "DuckDB 2", "verify": "moveout verify",
          "hand": "by hand", "proof": "moveout proof", "export": "moveout export", "deep": "moveout --deep"}
OF_FILES = [("hash", "sha", "wall"), ("hash", "sha", "client_cpu"), ("verify", "duckdb", "wall"),
            ("verify", "duckdb", "client_cpu")]
OF_SOURCE = [("proof", "hand", "wall"), ("proof", "hand", "server_cpu"), ("deep", "export", "wall"),
             ("deep", "export", "client_cpu"), ("deep", "export", "server_cpu")]
NUMBERS = ["cpu", "memory", "load", "ratio", "sent", "received", "errors", "latency", "counter"]
READ = "import duckdb, sys; duckdb.sql('SET threads = 2'); print(duckdb.sql(\"SELECT count(COLUMNS(*)) FROM " \
       "read_parquet('\" + sys.argv[1] + \"/data/**/*.parquet', union_by_name = true)\").fetchone())"


class Nobody:
    """No server."""
    log = os.devnull

    def cpu(self):
        return 0.0


class Bench:
    def __init__(self, args, folder, server, env=None):
        self.args, self.folder, self.server, self.env = args, folder, server, env or {}

    def run(self, *command):
        return contest.measure(self.server, self.folder, self.args.timeout, list(map(str, command)), env=self.env)

    def alone(self, *command):
        return self.run(*command)[0]

    def export(self, url, archive, *more):
        shutil.rmtree(archive, ignore_errors=True)
        return self.alone(self.args.moveout, "export", "--source", url, "--archive", archive, *more)

    def rounds(self, title, contestants, ratios, rows, warm_up):
        runs, failed = contest.in_rounds(contestants, LABELS, self.args.runs, warm_up)
        lines = [contest.line(LABELS[name], of, rows) for name, of in runs.items()]
        print(f"\n{title}; {self.args.runs} alternating runs\n")
        contest.show(lines, contest.COLUMNS)
        return {"title": title, "contestants": lines, "failed": failed,
                "ratios": contest.show_ratios(ratios, runs, LABELS, failed)}


def of_files(args, folder, archive, title, rows):
    python = contest.install("bench-venv-verify", ["duckdb==1.5.5"]) / "bin" / "python"
    bench = Bench(args, folder, Nobody())
    hashes = "find \"$0\" -type f -print0 | xargs -0 -P2 -n 64 sha256sum"
    data = sorted(archive.glob("data/**/*.parquet"))
    size = sum(file.stat().st_size for file in data)
    contestants = {"sha": lambda: bench.alone("bash", "-c", hashes, archive / "data"),
                   "hash": lambda: bench.alone(args.moveout, "verify", archive, "--hash-only"),
                   "duckdb": lambda: bench.alone(python, "-c", READ, archive),
                   "verify": lambda: bench.alone(args.moveout, "verify", archive)}
    title = f"{title}: {rows:,} rows, {size / 2**20:,.0f} MiB in {len(data):,} files"
    return bench.rounds(title, contestants, OF_FILES, rows, contestants["sha"])


def of_source(args, folder, server, url, title, rows, by_hand, env):
    bench, archive = Bench(args, folder, server, env), folder / "archive"
    bench.export(url, archive)
    proof = [args.moveout, "verify", archive, "--quick", "--against-source", "--source", url]
    contestants = {"hand": lambda: bench.alone(*by_hand), "proof": lambda: bench.alone(*proof),
                   "export": lambda: bench.export(url, folder / "again"), "deep": lambda: bench.alone(*proof, "--deep")}
    return bench.rounds(f"{title}: {rows:,} rows", contestants, OF_SOURCE, rows, contestants["hand"])


def aggregates(quote):
    columns = [f"{quote}{name}{quote}" for name in ["at", "host", "region", *NUMBERS, "note"]]
    numbers = [f"{quote}{name}{quote}" for name in NUMBERS]
    ends = [f"{end}({name})" for name in [columns[0], *numbers] for end in ("min", "max")]
    return ", ".join(["count(*)", *(f"count({name})" for name in columns), *ends,
                      *(f"sum({name})" for name in numbers)])


def few(args, folder):
    with compare_postgres.Server(folder) as server:
        server.fill(args)
        bench = Bench(args, folder, server, server.credentials)
        bench.export(server.url, folder / "few")
    return of_files(args, folder, folder / "few", "a few large files", args.rows)


def many(args, folder):
    lines, archive = folder / "many.lp", folder / "many"
    a_table = max(1, args.rows // args.tables)
    with lines.open("w") as file:
        for table in range(args.tables):
            for i in range(a_table):
                value, time = (i * 7919 + table) % 10_007 / 100, 1_704_067_200 * 10**9 + i * 10**10
                file.write(f"m{table},host=h{i % 10} usage={value},load={value * 1.7:.3f},count={i}i {time}\n")
    Bench(args, folder, Nobody()).export(f"lp:{lines}", archive)
    lines.unlink()
    return of_files(args, folder, archive, "many small files", a_table * args.tables)


def postgres(args, folder):
    with compare_postgres.Server(folder) as server:
        server.fill(args)
        hand = server.psql(f"SELECT {aggregates(chr(34))} FROM metrics")
        return of_source(args, folder, server, server.url, server.version(), args.rows, hand, server.credentials)


def mariadb(args, folder):
    with compare_mariadb.Server(folder) as server:
        server.fill(args)
        hand = [*server.client(), f"--execute=SELECT {aggregates('`')} FROM metrics"]
        return of_source(args, folder, server, server.url, server.version(), args.rows, hand, server.credentials)


def influxd(args, folder):
    if not (program := shutil.which("influxd")):
        raise Failure("no influxd found (Debian: apt-get install influxdb)")
    with compare_influxdb.Server(program, folder) as server:
        server.query("CREATE DATABASE bench")
        load = [sys.executable, HERE / "influxdb_load.py", server.port, "bench", args.rows, 30, os.cpu_count()]
        relational.run(list(map(str, load)))
        curl = ["curl", "-sS", "--fail", "--noproxy", "*", f"{server.url}/query", "--data-urlencode",
                "q=SELECT count(*) FROM bench.autogen.cpu"]
        url = f"influxdb+{server.url}/bench"
        return of_source(args, folder, server, url, "InfluxDB 1.x", args.rows, curl, {})


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)

    def names(text):
        if unknown := set(text.split(",")) - set(PARTS):
            raise argparse.ArgumentTypeError(f"no such part: {', '.join(unknown)}")
        return text.split(",")
    add = parser.add_argument
    add("--rows", type=int, default=2_000_000, help="default 2000000")
    add("--tables", type=int, default=2_000, help="small files; default 2000")
    add("--runs", type=int, default=3, help="rounds; default 3")
    add("--only", type=names, default=PARTS, metavar="NAME,…", help=", ".join(PARTS))
    add("--moveout", type=lambda f: Path(f).resolve(), default=HERE.parent / "target/release/moveout", metavar="FILE")
    add("--timeout", type=int, default=900, help="seconds for one run; default 900")
    add("--json", type=Path, metavar="FILE", help="write the figures there, too")
    args = types.SimpleNamespace(**vars(parser.parse_args()), no_index=False)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    if not args.moveout.is_file():
        say(f"compare_verify: no {args.moveout}; run `cargo build --release`, or give --moveout")
        return 1
    found, missing = [], False
    for part in [part for part in PARTS if part in args.only]:
        folder = Path(tempfile.mkdtemp(prefix="moveout-bench-"))
        try:
            folder.chmod(0o711)
            found.append(globals()[part](args, folder))
        except (Failure, OSError, subprocess.SubprocessError) as e:
            say(f"compare_verify, {part}: {e}")
            missing = True
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    if args.json:
        result = {"parts": found, "machine": platform.platform(), "cpus": os.cpu_count()}
        args.json.write_text(json.dumps(result, indent=1) + "\n")
    return 1 if missing or any(part["failed"] for part in found) else 0


if __name__ == "__main__":
    sys.exit(main())
