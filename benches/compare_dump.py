#!/usr/bin/env python3
"""Compares native dumps of `moveout export` with the same program piped into `zstd` at the same level, to one disk.

What it does, in this order:
  1. starts a PostgreSQL and a Redis of its own on free loopback ports in a temporary folder; at the end, however that
     comes, they are stopped and the folder removed. No other server is touched;
  2. fills them, and writes a file of text of the same size, which `cat` prints as a program of any kind;
  3. runs the contestants in turn, --runs rounds, each as processes of their own, and prints a table:
       PROGRAM | zstd   the program's standard output into `zstd -3 --check`, to a file, which is synced
       moveout          moveout export, which also reads back, decompresses and parses what it stored, and seals;
                        all rows of the PostgreSQL are excluded, so that the dump is all that there is to do
     The target is at most 1.10 of the wall time.

Needs: Linux, Python 3.11, PostgreSQL's server and client, Redis's server and tools, zstd (Debian: apt-get install
postgresql redis-server redis-tools zstd), moveout built with `cargo build --release`. RSS is the most that the process
of moveout itself had. Every dump of moveout is verified after its last round.

  benches/compare_dump.py --megabytes 1000 --runs 5 --json target/compare_dump.json
"""
import argparse, json, os, shutil, statistics, subprocess, tempfile, time
from pathlib import Path

from contest import ROOT, Failure, clean_environment, say
from relational import folder_of_server, free_port, run, unprivileged

TARGET = 1.10


def program(name, *folders):
    path = os.pathsep.join([*map(str, folders), os.environ["PATH"], "/usr/sbin"])
    found = shutil.which(name, path=path)
    if not found:
        raise Failure(f"{name} is not installed")
    return found


class Servers:
    """A PostgreSQL and a Redis with about so many bytes each."""

    def __init__(self, folder):
        self.folder, self.started = folder, []
        self.env = clean_environment() | {"LC_ALL": "C.UTF-8"}

    def start(self, command, home, log):
        with log.open("wb") as out:
            self.started.append(subprocess.Popen(command, cwd=home, stdout=out, stderr=out, stdin=subprocess.DEVNULL,
                                                 env=self.env, **unprivileged()))

    def wait(self, command, text=None):
        for _ in range(300):
            done = subprocess.run(command, env=self.env, capture_output=True)
            if done.returncode == 0 and (text is None or text in done.stdout):
                return
            time.sleep(0.1)
        raise Failure(f"{command[0]} gets no answer")

    def postgres(self, megabytes):
        home = folder_of_server(self.folder / "postgres")
        folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"))[-1:]
        run([program("initdb", *folders), "--no-sync", "--auth=trust", "--username=me", "-D", str(home / "data")],
            cwd=home, env=self.env, **unprivileged())
        port = free_port()
        self.start([program("postgres", *folders), "-D", str(home / "data"), "-p", str(port), "-k", str(home),
                    "-c", "fsync=off", "-c", "listen_addresses=127.0.0.1"], home, self.folder / "postgres.log")
        psql = ["psql", "-X", "-q", "-h", "127.0.0.1", "-p", str(port), "-U", "me", "-d", "postgres", "-c"]
        self.wait([*psql, "SELECT 1"])
        rows = megabytes * 1_000_000 // 120
        columns = "n AS id, now() + n * interval '1 s' AS at, md5(n::text) AS text, random() AS one, random() AS two"
        run([*psql, f"CREATE TABLE t AS SELECT {columns}, n % 97 AS three FROM generate_series(1, {rows}) n"],
            env=self.env)
        run([*psql, "VACUUM ANALYZE t"], env=self.env)
        return (["pg_dump", "--format=plain", "-h", "127.0.0.1", "-p", str(port), "-U", "me", "-d", "postgres"],
                f'url = "postgres://me@127.0.0.1:{port}/postgres?sslmode=disable"\ndump = true\nexclude = ["*"]\n')

    def redis(self, megabytes):
        home = folder_of_server(self.folder / "redis")
        port = free_port()
        self.start([program("redis-server"), "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir",
                    str(home), "--repl-diskless-sync-delay", "0", "--rdbcompression", "no",
                    "--enable-debug-command", "yes"], home, self.folder / "redis.log")
        cli = ["redis-cli", "-h", "127.0.0.1", "-p", str(port)]
        self.wait([*cli, "PING"], b"PONG")
        run([*cli, "DEBUG", "POPULATE", str(megabytes * 1_000_000 // 1000), "key", "1000"], env=self.env)
        return [*cli, "--rdb", "-"], f'url = "redis://127.0.0.1:{port}"\n'

    def text(self, megabytes):
        path = self.folder / "text"
        with path.open("wb") as out:
            line = 0
            while out.tell() < megabytes * 1_000_000:
                numbers = range(line, line + 9999)
                out.write(b"".join(b"%d %x a line of text\n" % (n, n * 2654435761 % 2**61) for n in numbers))
                line += 9999
            out.write(b"-- end\n")
        return ["cat", str(path)], f'dump = {{ command = ["cat", "{path}"], ends_with = "-- end" }}\n'

    def stop(self):
        for process in self.started:
            process.kill()
            process.wait()


def piped(command, folder, env):
    out = folder / "piped.zst"
    out.unlink(missing_ok=True)
    began = time.monotonic()
    with out.open("wb") as file:
        first = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=env)
        second = subprocess.Popen([program("zstd"), "-3", "--check", "-q", "-c"], stdin=first.stdout, stdout=file)
        first.stdout.close()
        if second.wait() or first.wait():
            raise Failure(f"{command[0]} | zstd failed")
        os.fsync(file.fileno())
    return time.monotonic() - began, 0, out.stat().st_size


def exported(moveout, config, folder, env):
    archive = folder / "archive"
    shutil.rmtree(archive, ignore_errors=True)
    (folder / "moveout.toml").write_text(config)
    began, peak = time.monotonic(), 0
    with (folder / "err").open("wb") as err:
        process = subprocess.Popen([moveout, "export", "--quiet", "--config", str(folder / "moveout.toml"), "--archive",
                                    str(archive)], env=env, stdout=err, stderr=err)
        while process.poll() is None:
            try:
                status = Path(f"/proc/{process.pid}/status").read_text()
            except OSError:
                continue
            line = next((line for line in status.splitlines() if line.startswith("VmHWM:")), "VmHWM: 0")
            peak = max(peak, int(line.split()[1]) / 1024)
            time.sleep(0.005)
    took = time.monotonic() - began
    if process.returncode:
        raise Failure(f"moveout ended with {process.returncode}:\n{(folder / 'err').read_text()}")
    dump = json.loads((archive / "catalog/dumps.json").read_text())[0]
    return took, peak, dump["bytes"], dump["raw_bytes"]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=int, default=500, help="about how much each program prints")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--only", default="postgres,redis,text")
    parser.add_argument("--moveout", default=str(ROOT / "target/release/moveout"))
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    results, missed = {}, False
    with tempfile.TemporaryDirectory(prefix="compare-dump-") as folder:
        folder = Path(folder)
        folder.chmod(0o755)
        servers = Servers(folder)
        try:
            for name in args.only.split(","):
                say(f"filling: {name}")
                command, source = getattr(servers, name)(args.megabytes)
                config = f'[[source]]\nname = "{name}"\n{source}'
                pipes, exports = [], []
                for number in range(args.runs + 1):
                    pipe = piped(command, folder, servers.env)
                    export = exported(args.moveout, config, folder, servers.env)
                    if number:  # the first warms up
                        pipes.append(pipe)
                        exports.append(export)
                run([args.moveout, "verify", str(folder / "archive")], env=servers.env)
                pipe, export = (statistics.median(r[0] for r in runs) for runs in (pipes, exports))
                result = {"piped_s": pipe, "moveout_s": export, "ratio": export / pipe, "raw_bytes": exports[0][3],
                          "piped_bytes": pipes[0][2], "bytes": exports[0][2],
                          "peak_rss_mib": max(r[1] for r in exports)}
                missed |= result["ratio"] > TARGET
                results[name] = result
                print(f"{name:10} {result['raw_bytes'] / 1e6:8.0f} MB   {command[0]} | zstd {pipe:7.2f} s   moveout "
                      f"{export:7.2f} s   ratio {result['ratio']:.2f} (at most {TARGET:.2f})   RSS "
                      f"{result['peak_rss_mib']:.0f} MiB", flush=True)
        finally:
            servers.stop()
    if args.json:
        args.json.write_text(json.dumps(results, indent=2) + "\n")
    return int(missed)


if __name__ == "__main__":
    try:
        raise SystemExit(main())
    except Failure as failure:
        raise SystemExit(f"{failure}")
