#!/usr/bin/env python3
"""How the time of an export grows with the number of tables, from a real InfluxDB 1.x and a real PostgreSQL.

The same number of rows lies in few tables and in ten times as many: 1,000 measurements of 1,000 points and 10,000 of
100 points, all over one day. Each is exported in turn, --runs rounds; with --before by an older moveout as well. The
last lines say how many times as long the many take. PostgreSQL has --relations tables of 10 rows.

  benches/compare_many.py --runs 3 --before /tmp/moveout-of-yesterday
  benches/compare_many.py --only influxd --counted      what a run asks the disk for, by strace

Needs: Linux, Python 3.11, influxd 1.x and PostgreSQL, moveout built with `cargo build --release`, strace for --counted.
"""
import argparse, json, shutil, signal, subprocess, sys, tempfile, types
from pathlib import Path

import compare_influxdb, compare_postgres, contest, relational
from contest import Failure, say

HERE = Path(__file__).resolve().parent
DAY, START = 86_400 * 10**9, 1_704_067_200 * 10**9
PARTS = ["influxd", "postgres"]


def load(server, database, tables, points):
    server.query(f'CREATE DATABASE "{database}"')
    lines = []
    for table in range(tables):
        for point in range(points):
            value = (point * 7919 + table) % 10_007
            lines.append(f"m{table:05},host=h{point % 5} usage={value / 100},load={value * 17 / 1000},count={value}i "
                         f"{START + point * (DAY // points)}")
        if len(lines) >= 20_000 or table == tables - 1:
            server.get(f"/write?db={database}", "\n".join(lines).encode())
            lines.clear()


class Bench:
    def __init__(self, args, folder, server, env=None):
        self.args, self.folder, self.server, self.env = args, folder, server, env or {}

    def export(self, program, url, tables, rows):
        archive = self.folder / "archive"
        shutil.rmtree(archive, ignore_errors=True)
        command = [program, "export", "--source", url, "--archive", archive, "--json"]
        run, [text] = contest.measure(self.server, self.folder, self.args.timeout, command, env=self.env)
        found = json.loads(text)
        contest.expect((found["tables"], found["rows_total"]), (tables, rows))
        return run | {"bytes": found["bytes_total"], "rows": rows}

    def counted(self, url, name):
        shutil.rmtree(self.folder / "archive", ignore_errors=True)
        calls = "trace=fsync,fdatasync,rename,renameat,link,linkat,openat,unlink,statx,connect"
        found = self.folder / "strace"
        subprocess.run(["strace", "-f", "-c", "-e", calls, "-o", found, self.args.moveout, "export", "--source", url,
                        "--archive", self.folder / "archive"], check=True, stdout=subprocess.DEVNULL,
                       stderr=subprocess.DEVNULL, env=contest.clean_environment() | self.env)
        print(f"\n{name}:\n{found.read_text()}")

    def rounds(self, title, contents):
        """`contents`: for each name the URL, the number of tables, and that of their rows."""
        if self.args.counted:
            for name, (url, _, _) in contents.items():
                self.counted(url, name)
            return {"title": title, "failed": {}}
        programs = {"now": self.args.moveout} | ({"before": self.args.before} if self.args.before else {})
        labels, contestants = {}, {}
        for name, (url, tables, rows) in contents.items():
            for when, program in programs.items():
                key = f"{name}, {when}"
                labels[key] = key
                contestants[key] = lambda p=program, u=url, t=tables, r=rows: self.export(p, u, t, r)
        runs, failed = contest.in_rounds(contestants, labels, self.args.runs, next(iter(contestants.values())))
        lines = [contest.line(name, of, of[0]["rows"]) for name, of in runs.items()]
        print(f"\n{title}; {self.args.runs} alternating runs; CPU seconds per million rows\n")
        contest.show(lines, contest.COLUMNS)
        names = list(contents)
        ratios = [(f"{b}, {when}", f"{a}, {when}", "wall") for when in programs for a, b in zip(names, names[1:])]
        ratios += [(f"{name}, now", f"{name}, before", what) for name in names for what in ("wall", "client_cpu")]
        return {"title": title, "contestants": lines, "failed": failed,
                "ratios": contest.show_ratios(ratios, runs, labels, failed)}


def influxd(args, folder):
    if not (program := shutil.which("influxd")):
        raise Failure("no influxd found (Debian: apt-get install influxdb)")
    with compare_influxdb.Server(program, folder) as server:
        contents = {}
        for database, tables, points in (("few", args.tables, 1000), ("many", 10 * args.tables, 100)):
            load(server, database, tables, points)
            url = f"influxdb+{server.url}/{database}"
            contents[f"{tables:,} x {points:,}"] = url, tables, tables * points
        return Bench(args, folder, server).rounds("InfluxDB 1.x", contents)


def postgres(args, folder):
    with compare_postgres.Server(folder) as server:
        server.sql(f"CREATE DATABASE {relational.DATABASE}", "postgres")
        for first in range(0, args.relations, 500):
            made = range(first, min(first + 500, args.relations))
            statements = "; ".join(
                f"CREATE TABLE t{n:05} (id bigint PRIMARY KEY, at timestamptz NOT NULL, name text, value float8); "
                f"INSERT INTO t{n:05} SELECT i, timestamptz '2024-01-01' + i * interval '1 hour', 'n' || i, i * 1.5 "
                f"FROM generate_series(1, 10) i" for n in made)
            server.sql(statements)
        name = f"{args.relations:,} x 10"
        contents = {name: (server.url, args.relations, 10 * args.relations)}
        return Bench(args, folder, server, server.credentials).rounds(server.version(), contents)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)

    def names(text):
        if unknown := set(text.split(",")) - set(PARTS):
            raise argparse.ArgumentTypeError(f"no such part: {', '.join(unknown)}")
        return text.split(",")
    add = parser.add_argument
    add("--tables", type=int, default=1_000, help="measurements of 1,000 points; default 1000")
    add("--relations", type=int, default=5_000, help="tables of PostgreSQL; default 5000")
    add("--runs", type=int, default=3, help="rounds; default 3")
    add("--only", type=names, default=PARTS, metavar="NAME,…", help=", ".join(PARTS))
    add("--counted", action="store_true", help="count system calls instead of comparing times")
    add("--moveout", type=lambda f: Path(f).resolve(), default=HERE.parent / "target/release/moveout", metavar="FILE")
    add("--before", type=lambda f: Path(f).resolve(), metavar="FILE", help="an older moveout, in the same rounds")
    add("--timeout", type=int, default=900, help="seconds for one run; default 900")
    add("--json", type=Path, metavar="FILE", help="write the figures there, too")
    args = types.SimpleNamespace(**vars(parser.parse_args()), no_index=False)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    if not args.moveout.is_file():
        say(f"compare_many: no {args.moveout}; run `cargo build --release`, or give --moveout")
        return 1
    found, missing = [], False
    for part in [part for part in PARTS if part in args.only]:
        folder = Path(tempfile.mkdtemp(prefix="moveout-bench-"))
        try:
            folder.chmod(0o711)
            found.append(globals()[part](args, folder))
        except (Failure, OSError, subprocess.SubprocessError) as e:
            say(f"compare_many, {part}: {e}")
            missing = True
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    if args.json:
        args.json.write_text(json.dumps({"parts": found}, indent=1) + "\n")
    return 1 if missing or any(part["failed"] for part in found) else 0


if __name__ == "__main__":
    sys.exit(main())
