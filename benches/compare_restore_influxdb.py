#!/usr/bin/env python3
"""Compares `moveout restore` with other loaders on a real InfluxDB 1.x, side by side on this machine.

It starts an influxd of its own as compare_influxdb.py does, loads the data of influxdb_load.py, exports them with moveout,
and then, in --runs rounds, each contestant puts the same points into an empty database of that server:
  moveout          moveout restore
  script xN        Python posts the same points as line protocol, by 5,000 lines, on N connections; oldest first
  influx -import   the client of InfluxDB 1.x, if there is one
All databases have shards of 52 weeks meanwhile. Points are counted; a wrong count is a failure.

Needs: Linux, Python 3.11, influxd 1.x, moveout built with `cargo build --release`.

  benches/compare_restore_influxdb.py --rows 1500000 --runs 3 --json target/restore.json
"""
import argparse, contest, json, os, platform, shutil, signal, subprocess, sys, tempfile
from pathlib import Path

from compare_influxdb import HERE, SERIES, Server
from contest import Failure, expect, say

PEERS = HERE / "restore_influxdb_peers.py"
LABELS = {"moveout": "moveout", "script-2": "script x2", "script-4": "script x4", "influx": "influx -import"}
RATIOS = [("moveout", peer, what) for peer in ("script-2", "script-4", "influx") for what in ("wall", "server_cpu")]


class Bench:
    def __init__(self, args, server, folder):
        self.args, self.server, self.folder = args, server, folder
        self.rows = args.rows // SERIES * SERIES
        server.load("bench", self.rows, args, "7d")
        self.archive, self.lines = folder / "archive", folder / "lines.lp"
        subprocess.run([args.moveout, "export", "--source", f"influxdb+{server.url}/bench", "--archive", self.archive,
                        "--quiet"], check=True, stdout=subprocess.DEVNULL, env=contest.clean_environment())
        subprocess.run([sys.executable, PEERS, "lines", self.lines, str(self.rows), str(args.days)], check=True)
        if shutil.which("influx"):
            head = f"# DML\n# CONTEXT-DATABASE: target\n# CONTEXT-RETENTION-POLICY: autogen\n"
            with (folder / "import.lp").open("wb") as out, self.lines.open("rb") as data:
                out.write(head.encode())
                shutil.copyfileobj(data, out)

    def contestants(self):
        found = {"moveout": self.moveout, "script-2": lambda: self.script(2), "script-4": lambda: self.script(4)}
        return found | ({"influx": self.influx} if shutil.which("influx") else {})

    def empty(self, create=True):
        self.server.query('DROP DATABASE "target"')
        if create:
            self.server.query('CREATE DATABASE "target" WITH DURATION INF SHARD DURATION 52w NAME "autogen"')

    def measure(self, *command, env=None):
        run, _ = contest.measure(self.server, self.folder, self.args.timeout, list(map(str, command)), env=env)
        answer = self.server.query('SELECT count("usage_user") FROM "target"."autogen"."cpu"')
        expect(answer["series"][0]["values"][0][1], self.rows)
        return run | {"rows": self.rows}

    def moveout(self):
        self.empty(create=False)
        return self.measure(self.args.moveout, "restore", self.archive, "--target", f"influxdb+{self.server.url}",
                            "--map", "bench=target", env={"XDG_STATE_HOME": str(self.folder)})

    def script(self, connections):
        self.empty()
        return self.measure(sys.executable, PEERS, "load", self.server.port, "target", self.lines, connections)

    def influx(self):
        self.empty()
        return self.measure("influx", "-host", "127.0.0.1", "-port", self.server.port, "-import", "-path",
                            self.folder / "import.lp", "-precision", "ns")


def compare(args, server, folder):
    bench = Bench(args, server, folder)
    chosen = bench.contestants()
    good, failed = contest.in_rounds(chosen, LABELS, args.runs, lambda: None)
    lines = [contest.line(LABELS[name], runs, bench.rows) for name, runs in good.items()]
    print(f"\n{bench.rows:,} points of 3 tags and 8 fields, {args.runs} alternating runs; medians, but the largest RSS\n")
    contest.show(lines, contest.COLUMNS)
    found = contest.show_ratios(RATIOS, good, LABELS, failed)
    return {"rows": bench.rows, "contestants": lines, "ratios": found, "failed": failed}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--rows", type=int, default=1_500_000, help="default 1500000")
    add("--days", type=int, default=9, help="that the points are spread over; default 9")
    add("--runs", type=int, default=3, help="rounds; default 3")
    add("--moveout", type=lambda f: Path(f).resolve(), default=HERE.parent / "target/release/moveout", metavar="FILE")
    add("--timeout", type=int, default=900, help="seconds for one run; default 900")
    add("--json", type=Path, metavar="FILE", help="write the figures there, too")
    args = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    folder = Path(tempfile.mkdtemp(prefix="moveout-bench-"))
    try:
        if not (influxd := shutil.which("influxd")):
            raise Failure("no influxd found; install InfluxDB 1.x (Debian: apt-get install influxdb)")
        if not args.moveout.is_file():
            raise Failure(f"no {args.moveout}; run `cargo build --release`, or give --moveout")
        with Server(influxd, folder) as server:
            result = compare(args, server, folder)
        result |= {"days": args.days, "machine": platform.platform(), "cpus": os.cpu_count()}
        if args.json:
            args.json.write_text(json.dumps(result, indent=1) + "\n")
        return 1 if result["failed"] else 0
    except (Failure, OSError, subprocess.SubprocessError) as e:
        say(f"compare_restore_influxdb: {e}")
        return 1
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
