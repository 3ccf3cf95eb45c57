"""What the benches of PostgreSQL and MariaDB have in common: the table, the way its contestants are run, and the
command line."""
import argparse, contest, json, os, platform, shutil, signal, socket, subprocess, sys, tempfile, time
from pathlib import Path

from contest import Failure, expect, say, tail

HERE = Path(__file__).resolve().parent
USER, PASSWORD, DATABASE = "bench", "bench", "bench"
BASE = ["pyarrow==26.0.1"]  # writes Parquet for those that cannot, and counts rows
# The extensions' version must be that of DuckDB.
PEERS = {"duckdb": ["duckdb==1.5.5", "duckdb-extension-postgres-scanner==1.5.5",
                    "duckdb-extension-mysql-scanner==1.5.5"],
         "connectorx": ["connectorx==0.4.6"], "adbc": ["adbc-driver-postgresql==1.13.0"]}
DAYS, HOSTS = 30, 100  # a row of each host at a time
COLUMNS = [*contest.COLUMNS, ("bytes", "bytes", ",.0f"), ("bytes/row", "bytes_per_row", ".2f"),
           ("x floor", "times_floor", ".2f")]

TARGET = "target"  # the database that is restored into
RESTORE_LABELS = {"floor": "floor", "moveout-c1": "moveout -c 1", "floor-x2": "floor x2", "moveout-c2": "moveout -c 2"}
RESTORE_RATIOS = [("moveout-c1", "floor", "wall"), ("moveout-c1", "floor", "server_cpu"),
                  ("moveout-c2", "floor-x2", "wall"), ("moveout-c2", "floor", "wall"), ("moveout-c2", "peer", "wall"),
                  ("moveout-c2", "peer", "server_cpu")]


def unprivileged():
    """How to start what refuses to be root."""
    return {"user": "nobody", "group": "nogroup", "extra_groups": []} if os.geteuid() == 0 else {}


def folder_of_server(path):
    """A folder that an unprivileged server may write to, with a file that has its password."""
    path.mkdir()
    file = path / "password"
    file.write_text(PASSWORD)
    if unprivileged():
        for one in (path, file):
            shutil.chown(one, "nobody", "nogroup")
    return path


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as free:
        return free.getsockname()[1]


def install_peers(name, needed):
    """The environment of the peers, and why some of them are not in it."""
    venv, missing = contest.install(name, BASE), {}
    for peer in sorted(needed):
        packages = PEERS[peer]
        marker = venv / f"installed-{peer}"
        if marker.exists() and marker.read_text() == repr(packages):
            continue
        say(f"installing {' '.join(packages)} into {venv}")
        pip = subprocess.run([venv / "bin" / "python", "-m", "pip", "install", "-q", *packages],
                             stderr=subprocess.PIPE, text=True)
        if pip.returncode:
            missing[peer] = (pip.stderr.strip().splitlines() or ["pip failed"])[-1]
            say(f"left out, cannot be installed: {peer}: {missing[peer]}")
        else:
            marker.write_text(repr(packages))
    return venv, missing


class Bench:
    """Runs contestants: each method does one measured run and checks that it was complete."""

    def __init__(self, args, server, folder, venv):
        self.args, self.server, self.folder, self.venv = args, server, folder, venv

    def measure(self, *commands, **options):
        return contest.measure(self.server, self.folder, self.args.timeout, *commands, **options)

    def peer(self, *args):
        return [self.venv / "bin" / "python", HERE / "relational_peers.py", *map(str, args)]

    def to_file(self, *args, env=None):
        """A peer that writes the Parquet file that is its last argument."""
        file = self.folder / "peer.parquet"
        file.unlink(missing_ok=True)
        run, _ = self.measure(self.peer(*args, file), env=env)
        return run | {"bytes": self.counted(file)}

    def moveout(self, concurrency, program=None):
        archive = self.folder / "archive"
        shutil.rmtree(archive, ignore_errors=True)
        run, _ = self.measure(
            [program or self.args.moveout, "export", "--source", self.server.url, "--archive", archive, "--from", "min",
             "--to", "max", "--concurrency", str(concurrency)], env=self.server.credentials)
        return run | {"bytes": self.counted(archive)}

    def counted(self, path):
        """The size of what was written, which has all rows."""
        _, [text] = self.measure(self.peer("count", path))
        rows, size = json.loads(text)
        expect(rows, self.args.rows)
        return size


class RestoreBench(Bench):
    """Restores the table. Who inherits says by `prepare()` what is restored from, and sets `restore`, the command of a peer,
    and `table`, the statement that makes the table; `empty()` makes an empty database, `load(name)` is the command that
    loads a file into the table."""

    def __init__(self, *args):
        super().__init__(*args)
        self.archive = self.folder / "restored-archive"
        self.run([self.args.moveout, "export", "--source", self.server.url, "--archive", self.archive, "--quiet"])
        self.prepare()

    def ready(self):
        """Is called when the database is empty."""

    def run(self, command, stdout=subprocess.DEVNULL):
        env = contest.clean_environment() | self.server.credentials
        subprocess.run(list(map(str, command)), check=True, stdout=stdout, env=env)

    def contestants(self):
        return {"floor": self.floor, "moveout-c1": lambda: self.moveout(1),
                "floor-x2": lambda: self.loads("first", "second"), "moveout-c2": lambda: self.moveout(2),
                "peer": lambda: self.measured(self.restore)}

    def measured(self, *commands, table="", env=None):
        self.empty()
        if table:
            self.server.sql(table, TARGET)
        self.ready()
        commands = [list(map(str, command)) for command in commands]
        run, _ = self.measure(*commands, env=self.server.credentials | (env or {}))
        expect(int(self.server.sql("SELECT count(*) FROM metrics", TARGET)), self.args.rows)
        return run

    def loads(self, *names):
        return self.measured(*map(self.load, names), table=self.table)

    def floor(self):
        return self.loads("all")

    def moveout(self, concurrency, program=None):
        url = self.server.url.removesuffix(DATABASE) + TARGET
        command = [program or self.args.moveout, "restore", self.archive, "--target", url, "--concurrency", concurrency]
        return self.measured(command, env={"XDG_STATE_HOME": str(self.folder)})


def main(name, doc, labels, ratios, belongs_to, server_class, bench_class):
    """`belongs_to` says which of PEERS a contestant needs."""
    def names(text):
        if unknown := set(text.split(",")) - set(labels):
            raise argparse.ArgumentTypeError(f"no such contestant: {', '.join(unknown)}")
        return text.split(",")
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--rows", type=int, default=2_000_000, help="default 2000000")
    add("--runs", type=int, default=3, help="rounds; default 3")
    add("--only", type=names, default=list(labels), metavar="NAME,…", help=", ".join(labels))
    add("--no-index", action="store_true", help="none on the time column")
    add("--moveout", type=lambda f: Path(f).resolve(), default=HERE.parent / "target/release/moveout", metavar="FILE")
    add("--before", type=lambda f: Path(f).resolve(), metavar="FILE", help="an older moveout, in the same rounds")
    add("--timeout", type=int, default=900, help="seconds for one run; default 900")
    add("--json", type=Path, metavar="FILE", help="write the figures there, too")
    args = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    folder = Path(tempfile.mkdtemp(prefix="moveout-bench-"))
    try:
        folder.chmod(0o711)
        if set(args.only) & {"moveout-c1", "moveout-c2"} and not args.moveout.is_file():
            raise Failure(f"no {args.moveout}; run `cargo build --release`, or give --moveout or --only")
        needed = {belongs_to[n] for n in args.only if n in belongs_to}
        venv, missing = install_peers("bench-venv-relational", needed)
        with server_class(folder) as server:
            say(f"filling a table with {args.rows:,} rows")
            server.fill(args)
            bench = bench_class(args, server, folder, venv)
            chosen = {n: run for n, run in bench.contestants().items()
                      if n in args.only and belongs_to.get(n) not in missing}
            if args.before:
                chosen |= contest.before(bench.moveout, args.before, (1, 2), chosen, labels, ratios)
            runs, failed = contest.in_rounds(chosen, labels, args.runs, bench.floor)
            lines = [contest.line(labels[n], r, args.rows) for n, r in runs.items()]
            floor = next((l["wall_s"] for l in lines if l["name"] == labels["floor"]), None)
            for line in lines:
                line["times_floor"] = line["wall_s"] / floor if floor else None
            print(f"\n{args.rows:,} rows, {server.size() / 2**20:,.0f} MiB in {server.version()}, "
                  f"{'no index on time' if args.no_index else 'an index on time'}, {args.runs} alternating runs;\n"
                  "medians, but the largest RSS; CPU seconds per million rows; bytes are those of Parquet\n")
            contest.show(lines, COLUMNS)
            found = contest.show_ratios(ratios, runs, labels, failed)
            for peer, why in missing.items():
                print(f"left out, cannot be installed: {peer}: {why}")
            result = {"rows": args.rows, "index": not args.no_index, "contestants": lines, "ratios": found,
                      "failed": failed, "missing": missing, "server": server.version(), "peers": PEERS,
                      "machine": platform.platform(), "cpus": os.cpu_count()}
        if args.json:
            args.json.write_text(json.dumps(result, indent=1) + "\n")
        return 1 if failed else 0
    except (Failure, OSError, subprocess.SubprocessError) as e:
        say(f"{name}: {e}")
        return 1
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def run(command, text=None, env=None, **options):
    """What a command prints that must succeed."""
    done = subprocess.run(command, input=text, capture_output=True, text=True,
                          env=contest.clean_environment() | (env or {}), **options)
    if done.returncode:
        raise Failure(f"{' '.join(map(str, command))[:300]}\n{done.stderr[-2000:]}")
    return done.stdout.strip()


class Server:
    """A server that lives as long as the `with` block. Who inherits has set `url`, `credentials`, `log` and
    `command`, says by `answers()` whether it is up, and ends it by the signal `how`."""
    process, how = None, signal.SIGTERM

    def __enter__(self):
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(self.command, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                            env=contest.clean_environment(), cwd=self.home, **unprivileged())
        try:
            deadline = time.monotonic() + 60
            while not self.answers():
                if self.process.poll() is not None or time.monotonic() > deadline:
                    raise Failure(f"the server did not start:\n{tail(self.log)}")
                time.sleep(0.1)
            return self
        except BaseException:
            self.__exit__()
            raise

    def __exit__(self, *_):
        contest.stop_process(self.process, self.how)

    def cpu(self):
        """Seconds of CPU that the server has used so far."""
        if self.process.poll() is not None:
            raise Failure(f"the server has died:\n{tail(self.log)}")
        return contest.cpu_of_tree(self.process.pid)
