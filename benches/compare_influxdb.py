#!/usr/bin/env python3
"""Compares `moveout export` with its peers on a real InfluxDB 1.x, side by side on this machine.

What it does, in this order:
  1. makes a virtual environment in target/bench-venv and installs the peers (PEERS below) into it;
  2. starts an influxd of its own on free loopback ports in a temporary folder; at the end, however that
     comes, it is stopped and the folder removed. No other server is touched;
  3. loads Telegraf-like data (measurement `cpu`, 100 series, 3 tags, 8 floats; the same at each call)
     and waits until the server has compacted them and is quiet;
  4. runs the contestants in turn, --runs rounds, each as a process of its own, and prints a table:
       floor         curl drains the msgpack answer to nowhere: what the server can deliver
       moveout -c N  moveout export --concurrency N
       s3 -c N       the same, to an S3 server on this machine (benches/pipeline.rs), which checks signatures;
                     its CPU counts as the server's
       encode        moveout's Parquet writer on the rows of that archive in memory, to nowhere
       floor x2      two such drains at once, half of the range each
       pyarrow csv   requests' CSV stream, pyarrow.csv, ParquetWriter; a query a day
       python        influxdb-python's DataFrameClient, ParquetWriter; a query a day, only --python-days
                     of the range, the wall time scaled up to all of it
       verify        moveout verify of what `-c 1` wrote
       pyarrow size  the rows of that archive written again by pyarrow's write_table with zstd: wall and
                     CPU are those of the writing alone
With --memory it compares moveout's peak memory for a small and a large table in one window instead.

Needs: Linux, Python 3.11, influxd 1.x (Debian: apt-get install influxdb), moveout built with
`cargo build --release`; curl if there is one. Client CPU is user + system time of the contestant's
processes, server CPU that of influxd meanwhile, RSS the largest ru_maxrss (never below this script's
own 20 MiB, and added up over the processes). Rows are counted; a wrong count is a failure.

  benches/compare_influxdb.py --rows 3000000 --runs 5 --json target/compare.json
  benches/compare_influxdb.py --only floor,moveout-c1 --window 1d
  benches/compare_influxdb.py --memory
"""
import argparse, contest, json, os, platform, re, shutil, signal, socket, subprocess, sys, tempfile, time
import urllib.parse, urllib.request
from pathlib import Path

from built import bench_program
from contest import Failure, clean_environment, expect, say, tail

HERE = Path(__file__).resolve().parent
VENV = HERE.parent / "target" / "bench-venv"
PEERS = ["influxdb==5.3.2", "pandas==3.1.1", "numpy==2.4.6", "pyarrow==26.0.1", "requests==2.34.0",
         "msgpack==1.2.4"]
SERIES = 100  # as in influxdb_load.py
DAY = 86_400 * 10**9
LABELS = {"floor": "floor", "moveout-c1": "moveout -c 1", "floor-x2": "floor x2",
          "moveout-c2": "moveout -c 2", "moveout-c4": "moveout -c 4", "pyarrow-csv": "pyarrow csv",
          "python": "python", "verify": "verify", "pyarrow-size": "pyarrow size",
          "s3-c1": "s3 -c 1", "s3-c4": "s3 -c 4", "encode": "encode"}
RATIOS = [("moveout-c1", "floor", "wall"), ("moveout-c2", "floor-x2", "wall"), ("moveout-c4", "floor-x2", "wall"),
          ("moveout-c1", "pyarrow-csv", "wall"), ("moveout-c1", "pyarrow-csv", "client_cpu"),
          ("s3-c1", "moveout-c1", "wall"), ("s3-c4", "moveout-c4", "wall"), ("encode", "floor", "wall"),
          ("moveout-c1", "floor", "server_cpu"), ("moveout-c1", "pyarrow-size", "client_cpu"),
          ("moveout-c1", "pyarrow-csv", "bytes"), ("moveout-c1", "pyarrow-size", "bytes")]
SETTINGS = """
REPORTING_DISABLED=true META_LOGGING_ENABLED=false LOGGING_LEVEL=warn DATA_QUERY_LOG_ENABLED=false
DATA_WAL_FSYNC_DELAY=100ms DATA_CACHE_MAX_MEMORY_SIZE=8589934592 DATA_CACHE_SNAPSHOT_MEMORY_SIZE=134217728
DATA_CACHE_SNAPSHOT_WRITE_COLD_DURATION=3s DATA_COMPACT_FULL_WRITE_COLD_DURATION=6s
DATA_MAX_SERIES_PER_DATABASE=0 DATA_MAX_VALUES_PER_TAG=0 SHARD_PRECREATION_ENABLED=false
MONITOR_STORE_ENABLED=false SUBSCRIBER_ENABLED=false CONTINUOUS_QUERIES_ENABLED=false
HTTP_LOG_ENABLED=false HTTP_MAX_BODY_SIZE=0
"""


class Server:
    """An influxd that lives as long as the `with` block."""

    def __init__(self, influxd, folder):
        with socket.create_server(("127.0.0.1", 0)) as a, socket.create_server(("127.0.0.1", 0)) as b:
            self.port, rpc = a.getsockname()[1], b.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        settings = dict(word.split("=") for word in SETTINGS.split()) | {
            "META_DIR": folder / "meta", "DATA_DIR": folder / "data", "DATA_WAL_DIR": folder / "wal",
            "BIND_ADDRESS": f"127.0.0.1:{rpc}", "HTTP_BIND_ADDRESS": f"127.0.0.1:{self.port}"}
        self.log = folder / "influxd.log"
        with self.log.open("wb") as log:  # /dev/null: not what /etc says
            self.process = subprocess.Popen(
                [influxd, "run", "-config", "/dev/null"], stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                cwd=folder, env=clean_environment() | {f"INFLUXDB_{k}": str(v) for k, v in settings.items()})

    def __enter__(self):
        try:
            deadline = time.monotonic() + 60
            while True:
                try:
                    self.get("/ping")
                    return self
                except OSError:
                    if self.process.poll() is not None or time.monotonic() > deadline:
                        raise Failure(f"influxd did not start:\n{tail(self.log)}") from None
                    time.sleep(0.1)
        except BaseException:
            self.__exit__()
            raise

    def __exit__(self, *_):
        contest.stop_process(self.process)

    def get(self, path, data=None):
        direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        return direct.open(self.url + path, data, timeout=300).read()

    def query(self, q):
        answer = json.loads(self.get("/query", urllib.parse.urlencode({"q": q}).encode()))
        if "error" in answer["results"][0]:
            raise Failure(f"{q}: {answer}")
        return answer["results"][0]

    def cpu(self):
        """Seconds of CPU that the server has used so far."""
        if self.process.poll() is not None:
            raise Failure(f"influxd has died:\n{tail(self.log)}")
        return contest.cpu_of_tree(self.process.pid)

    def load(self, database, rows, args, shard):
        """Creates a database with `rows` rows; returns their first time, the points' distance, the end."""
        self.query(f'CREATE DATABASE "{database}" WITH DURATION INF SHARD DURATION {shard} NAME "autogen"')
        started = time.monotonic()
        first, step, size = json.loads(subprocess.check_output(
            [sys.executable, HERE / "influxdb_load.py", str(self.port), database, str(rows), str(args.days), "2"]))
        # Seen on 1.6: a count while the server writes its cache to a file can miss rows, for a moment.
        for _ in range(20):
            answer = self.query(f'SELECT count("usage_user") FROM "{database}"."autogen"."cpu"')
            if (found := answer["series"][0]["values"][0][1]) == rows:
                break
            say(f"the server counts {found} of {rows} rows; asking again")
            time.sleep(2)
        expect(found, rows)
        say(f"loaded {rows:,} rows, {size / 1e6:.0f} MB of line protocol, a point every {step // 10**9} s, "
            f"in {time.monotonic() - started:.1f} s; waiting for compactions")
        calm, deadline = 0, time.monotonic() + 240
        while calm < 12 and time.monotonic() < deadline:
            before = self.cpu()
            time.sleep(1)
            calm = calm + 1 if self.cpu() - before < 0.05 else 0
        return first, step, first + rows // SERIES * step


class Bench:
    """The contestants: each method does one measured run and checks that it was complete."""

    def __init__(self, args, server, folder, database, rows, shard):
        self.args, self.server, self.folder, self.database, self.rows = args, server, folder, database, rows
        self.begin, self.step, self.end = server.load(database, rows, args, shard)
        self.archive = folder / "archive"  # what the last `moveout -c 1` wrote

    def contestants(self):
        return {"floor": self.floor, "moveout-c1": lambda: self.moveout(1),
                "floor-x2": lambda: self.floor(2), "moveout-c2": lambda: self.moveout(2),
                "moveout-c4": lambda: self.moveout(4), "s3-c1": lambda: self.s3(1), "s3-c4": lambda: self.s3(4),
                "encode": self.encode, "pyarrow-csv": lambda: self.by_day("csv", self.args.days),
                "python": lambda: self.by_day("frames", self.args.python_days),
                "verify": self.verify, "pyarrow-size": self.again}

    def measure(self, *commands, env=None):
        run, outs = contest.measure(self.server, self.folder, self.args.timeout, *commands, env=env)
        return {"rows": self.rows} | run, outs

    def peer(self, *args):
        return [VENV / "bin" / "python", HERE / "influxdb_peers.py", *map(str, args)]

    def drain(self, begin, end):
        width, urls = self.args.window or end - begin, []
        for a in range(begin, end, width):
            q = (f'SELECT *::field FROM "{self.database}"."autogen"."cpu" '
                 f"WHERE time >= {a} AND time < {min(a + width, end)} GROUP BY *")
            urls.append(f"{self.server.url}/query?" + urllib.parse.urlencode(
                {"q": q, "epoch": "ns", "chunked": "true", "chunk_size": 10000}))
        if not (curl := shutil.which("curl")):
            return self.peer("drain", *urls)
        return [curl, "-q", "-sS", "--fail", "-H", "Accept: application/x-msgpack", "-w", "%{size_download}\\n",
                *(part for url in urls for part in ("-o", "/dev/null", url))]

    def floor(self, parts=1):
        edges = [self.begin + (self.end - self.begin) * i // parts for i in range(parts + 1)]
        run, outs = self.measure(*(self.drain(a, b) for a, b in zip(edges, edges[1:])))
        size = sum(int(n) for out in outs for n in out.split())
        if size < 72 * self.rows:  # 8 floats of 9 bytes and a time; an error is far shorter, at status 200
            raise Failure(f"only {size} bytes for {self.rows} rows")
        return run | {"bytes": size}

    def export(self, concurrency, archive, window=None, program=None):
        command = [program or self.args.moveout, "export", "--source", f"influxdb+{self.server.url}/{self.database}",
                   "--archive", archive, "--from", "min", "--to", "max", "--concurrency", str(concurrency)]
        window = window or self.args.window_text
        return command + (["--window", window] if window else [])

    def moveout(self, concurrency, window=None, program=None):
        archive = self.archive if concurrency == 1 else self.folder / "other-archive"
        shutil.rmtree(archive, ignore_errors=True)
        try:
            run, _ = self.measure(self.export(concurrency, archive, window, program))
            rows, size = json.loads(self.measure(self.peer("count", archive))[1][0])
            expect(rows, self.rows)
        except Failure:
            shutil.rmtree(archive, ignore_errors=True)  # which others read
            raise
        return run | {"bytes": size}

    def s3(self, concurrency):
        """To a bucket of a server of its own."""
        server = subprocess.Popen([bench_program(), "serve-s3"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                  env=clean_environment() | {"TMPDIR": str(self.folder)})
        try:
            answer = json.loads(server.stdout.readline())
            run, [text] = self.measure(self.export(concurrency, f"{answer['url']}/archive") + ["--json"],
                                       env=answer["env"])
        finally:
            server.stdin.close()
            usage = os.wait4(server.pid, 0)[2]
            server.returncode = 0
        result = json.loads(text)
        expect(result["rows_total"], self.rows)
        return run | {"bytes": result["bytes_total"], "server_cpu": run["server_cpu"] + usage.ru_utime + usage.ru_stime}

    def encode(self):
        files = sorted(self.archive.rglob("data/**/*.parquet"))
        runs = [self.measure([bench_program(), "encode", file, "0", "1"]) for file in files]
        found = [json.loads(text) for _, [text] in runs]
        expect(sum(f["rows"] for f in found), self.rows)
        return {"rows": self.rows, "wall": sum(f["wall"] for f in found), "server_cpu": None,
                "client_cpu": sum(f["cpu"] for f in found), "bytes": sum(f["bytes"] for f in found),
                "rss_mib": max(run["rss_mib"] for run, _ in runs)}

    def verify(self):
        run, _ = self.measure([self.args.moveout, "verify", self.archive])
        return run | {"server_cpu": None}

    def by_day(self, name, days):
        end, out = min(self.end, self.begin + days * DAY), Path(tempfile.mkdtemp(dir=self.folder))
        run, [text] = self.measure(self.peer(name, self.server.port, self.database, self.begin, end, out))
        rows = -(-(end - self.begin) // self.step) * SERIES
        expect(int(text), rows)
        size = sum(f.stat().st_size for f in out.iterdir())
        shutil.rmtree(out)
        return run | {"rows": rows, "bytes": size}

    def again(self):
        run, [text] = self.measure(self.peer("again", self.archive, self.folder / "again.parquet"))
        rows, size, cpu, wall = json.loads(text)
        expect(rows, self.rows)
        return run | {"bytes": size, "client_cpu": cpu, "wall": wall, "server_cpu": None}


def summary(name, runs, args, rows):
    """One line of the table."""
    count = runs[0]["rows"]
    scaled = f" ({args.python_days} of {args.days} d, wall scaled)" if count < rows else ""
    return contest.line(LABELS[name] + scaled, runs, count, rows / count)


def compare(args, server, folder):
    rows = args.rows // SERIES * SERIES
    bench = Bench(args, server, folder, "bench", rows, "7d")
    chosen = {n: run for n, run in bench.contestants().items() if n in args.only}
    if args.before:
        chosen |= contest.before(bench.moveout, args.before, (1, 4), chosen, LABELS, RATIOS)
    # The floor that is not counted warms the page cache, and calms the server's heap after `python`.
    good, failed = contest.in_rounds(chosen, LABELS, args.runs, bench.floor)
    lines = [summary(n, r, args, rows) for n, r in good.items()]
    print(f"\n{rows:,} rows over {args.days} days, {args.runs} alternating runs; medians, but the largest RSS;\n"
          "CPU seconds per million rows; bytes are those of the Parquet files, for the floors of the answer\n")
    contest.show(lines, [*contest.COLUMNS, ("bytes/row", "bytes_per_row", ".2f")])
    found = contest.show_ratios(RATIOS, good, LABELS, failed)
    return {"rows": rows, "contestants": lines, "ratios": found, "failed": failed}


def memory(args, server, folder):
    # One shard for all, so that nothing but --window cuts the range.
    benches = [Bench(args, server, folder, f"memory_{rows}", rows, "3650d")
               for rows in (n // SERIES * SERIES for n in args.memory_rows)]
    runs = [[], []]
    for number in range(1, args.runs + 1):
        for mine, bench in zip(runs, benches):
            mine.append(bench.moveout(1, window="3650d"))
            say(f"round {number}: {bench.rows:,} rows {mine[-1]['wall']:.2f} s, {mine[-1]['rss_mib']:.1f} MiB")
    peaks = [max(r["rss_mib"] for r in mine) for mine in runs]
    for bench, peak in zip(benches, peaks):
        print(f"peak RSS of moveout -c 1, {bench.rows:,} rows in one window: {peak:.1f} MiB")
    print(f"ratio: {peaks[1] / peaks[0]:.3f}")
    return {"rows": [b.rows for b in benches], "peak_rss_mib": peaks, "ratio": peaks[1] / peaks[0], "runs": runs}


def width(text):
    if not (match := re.fullmatch(r"([1-9]\d*)([smhdw])", text)):
        raise argparse.ArgumentTypeError("a width is a number and s, m, h, d or w, such as 1d")
    return int(match[1]) * {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}[match[2]] * 10**9


def names(text):
    if unknown := set(text.split(",")) - set(LABELS):
        raise argparse.ArgumentTypeError(f"no such contestant: {', '.join(unknown)}")
    return text.split(",")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--rows", type=int, default=1_500_000, help="default 1500000")
    add("--days", type=int, default=9, help="that the rows are spread over; default 9")
    add("--runs", type=int, default=3, help="rounds; default 3")
    add("--window", dest="window_text", metavar="WIDTH",
        help="for the floors and moveout; default: a floor asks for the whole range at once, moveout as it likes")
    add("--only", type=names, default=list(LABELS), metavar="NAME,…", help=", ".join(LABELS))
    add("--python-days", type=int, default=2, help="days that `python` reads; default 2")
    add("--memory", action="store_true", help="compare peak memory instead")
    add("--memory-rows", type=int, nargs=2, default=[300_000, 3_000_000], metavar="N", help="default 300000 3000000")
    add("--moveout", type=lambda f: Path(f).resolve(), default=HERE.parent / "target/release/moveout", metavar="FILE")
    add("--before", type=lambda f: Path(f).resolve(), metavar="FILE", help="an older moveout, in the same rounds")
    add("--timeout", type=int, default=900, help="seconds for one run; default 900")
    add("--json", type=Path, metavar="FILE", help="write the figures there, too")
    args = parser.parse_args()
    args.window = width(args.window_text) if args.window_text else None
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    folder = Path(tempfile.mkdtemp(prefix="moveout-bench-"))
    try:
        if not (influxd := shutil.which("influxd")):
            raise Failure("no influxd found; install InfluxDB 1.x (Debian: apt-get install influxdb)")
        needed = args.memory or set(args.only) - {"floor", "floor-x2", "pyarrow-csv", "python"}
        if needed and not args.moveout.is_file():
            raise Failure(f"no {args.moveout}; run `cargo build --release`, or give --moveout or --only")
        contest.install(VENV.name, PEERS)
        with Server(influxd, folder) as server:
            result = (memory if args.memory else compare)(args, server, folder)
        result |= {"days": args.days, "window": args.window_text, "peers": PEERS,
                   "server": subprocess.check_output([influxd, "version"], text=True).strip(),
                   "machine": platform.platform(), "cpus": os.cpu_count()}
        if args.json:
            args.json.write_text(json.dumps(result, indent=1) + "\n")
        return 1 if result.get("failed") else 0
    except (Failure, OSError, subprocess.SubprocessError) as e:
        say(f"compare_influxdb: {e}")
        return 1
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
