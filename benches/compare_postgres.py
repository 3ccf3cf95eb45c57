#!/usr/bin/env python3
"""Compares `moveout export` with its peers on a real PostgreSQL, side by side on this machine.

What it does, in this order:
  1. makes a virtual environment in target/bench-venv-relational and installs the peers into it; one that
     cannot be installed is said, and left out;
  2. starts a PostgreSQL of its own, with its default settings but for those of durability, on a free
     loopback port in a temporary folder; at the end, however that comes, it is stopped and the folder
     removed. No other server is touched;
  3. fills the table `metrics`: a timestamptz, two texts, eight float8, a bigint, a text that is mostly null;
  4. runs the contestants in turn, --runs rounds, each as a process of its own, and prints a table:
       floor         psql: COPY (SELECT …) TO STDOUT (FORMAT binary) to nowhere: what the server can deliver
       floor x2      two of these at once, half of the table's blocks each
       moveout -c N  moveout export --concurrency N
       DuckDB N      DuckDB's postgres extension, COPY to Parquet, N threads
       connectorx    binary protocol, arrow_stream, pyarrow's ParquetWriter
       ADBC          the same by ADBC's driver

Needs: Linux, Python 3.11, PostgreSQL's server (Debian: apt-get install postgresql), moveout built with
`cargo build --release`. Client CPU is user + system time of the contestant's processes, server CPU that of
all server processes meanwhile, RSS the largest ru_maxrss (never below this script's own, and added up over
the processes). Rows are counted; a wrong count is a failure.

  benches/compare_postgres.py --rows 10000000 --runs 5 --json target/compare_postgres.json
  benches/compare_postgres.py --only floor,moveout-c2,duckdb-2 --no-index
"""
import re, signal, subprocess, sys
from pathlib import Path

import relational
from contest import Failure
from relational import DATABASE, DAYS, HOSTS, PASSWORD, USER

LABELS = {"floor": "floor", "moveout-c1": "moveout -c 1", "duckdb-1": "DuckDB 1", "floor-x2": "floor x2",
          "moveout-c2": "moveout -c 2", "duckdb-2": "DuckDB 2", "connectorx": "connectorx", "adbc": "ADBC"}
BELONGS_TO = {"duckdb-1": "duckdb", "duckdb-2": "duckdb", "connectorx": "connectorx", "adbc": "adbc"}
RATIOS = [("moveout-c1", "floor", "wall"), ("moveout-c2", "floor-x2", "wall"), ("moveout-c1", "duckdb-1", "wall"),
          ("moveout-c2", "duckdb-2", "wall"), ("moveout-c2", "duckdb-2", "client_cpu"),
          ("moveout-c2", "duckdb-2", "server_cpu"), ("moveout-c2", "duckdb-2", "bytes"),
          ("moveout-c1", "connectorx", "wall"), ("moveout-c1", "adbc", "wall")]
COPY = "COPY (SELECT * FROM metrics{}) TO STDOUT (FORMAT binary)"


def programs():
    """Where the newest server's programs are; Debian keeps them out of PATH."""
    found = [p for p in Path("/usr/lib/postgresql").glob("*/bin") if (p / "initdb").exists()]
    if not found:
        raise Failure("no PostgreSQL found (Debian: apt-get install postgresql)")
    return max(found, key=lambda p: int(re.sub(r"\D", "", p.parent.name) or 0))


class Server(relational.Server):
    how = signal.SIGQUIT

    def __init__(self, folder):
        self.log, self.home = folder / "postgres.log", relational.folder_of_server(folder / "postgres")
        relational.run([programs() / "initdb", "--no-sync", "--auth=scram-sha-256", "--encoding=UTF8",
                        "--locale=C.UTF-8", "--username", USER, "--pgdata", "data", "--pwfile", "password"],
                       cwd=self.home, **relational.unprivileged())
        self.port = relational.free_port()
        self.url = f"postgres://{USER}@127.0.0.1:{self.port}/{DATABASE}"
        self.credentials = {"PGPASSWORD": PASSWORD}
        self.command = [programs() / "postgres", "-D", "data", "-p", str(self.port)]
        for setting in ("listen_addresses=127.0.0.1", "unix_socket_directories=", "fsync=off",
                        "full_page_writes=off", "autovacuum=off", "max_wal_size=10GB"):
            self.command += ["-c", setting]

    def answers(self):
        ready = [programs() / "pg_isready", "-q", "-h", "127.0.0.1", "-p", str(self.port)]
        return subprocess.run(ready).returncode == 0

    def psql(self, command, database=DATABASE):
        return ["psql", "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-h", "127.0.0.1", "-p", str(self.port),
                "-U", USER, "-d", database, "-c", command]

    def sql(self, command, database=DATABASE):
        return relational.run(self.psql(command, database), env=self.credentials)

    def fill(self, args):
        self.sql(f"CREATE DATABASE {DATABASE}", "postgres")
        self.sql("""CREATE TABLE metrics (at timestamptz NOT NULL, host text, region text, cpu float8, memory float8,
                    load float8, ratio float8, sent float8, received float8, errors float8, latency float8,
                    counter bigint, note text)""")
        # Some doubles have all their digits in use, some are rounded as gauges are, one is nearly constant.
        self.sql(f"""INSERT INTO metrics SELECT
            to_timestamp(1704067200 + (i / {HOSTS}) * {DAYS * 86400 * HOSTS / args.rows}), 'host' || i % {HOSTS},
            (ARRAY['eu-west-1', 'eu-central-1', 'us-east-1', 'us-west-2'])[1 + i % 4],
            floor(random() * 10000) / 100, floor(random() * 10000) / 100, 100 * sin(i / 1000.0::float8), random(),
            floor(random() * 1000), (i % 1000) / 8.0::float8, CASE WHEN i % 50 = 0 THEN 1 ELSE 0 END,
            exp(random() * 10), i, CASE WHEN i % 10 = 0 THEN 'note ' || i % 1000 END
            FROM generate_series(0, {args.rows - 1}) AS i""")
        if not args.no_index:
            self.sql("CREATE INDEX ON metrics (at)")
        self.sql("VACUUM (FREEZE, ANALYZE) metrics")
        self.sql("CHECKPOINT")

    def size(self):
        return int(self.sql("SELECT pg_table_size('metrics')"))

    def version(self):
        return "PostgreSQL " + self.sql("SHOW server_version").partition(" ")[0]


class Bench(relational.Bench):
    def contestants(self):
        link = f"postgresql://{USER}:{PASSWORD}@127.0.0.1:{self.server.port}/{DATABASE}"
        return {"floor": self.floor, "moveout-c1": lambda: self.moveout(1), "duckdb-1": lambda: self.duckdb(1),
                "floor-x2": self.floor_of_two, "moveout-c2": lambda: self.moveout(2),
                "duckdb-2": lambda: self.duckdb(2), "connectorx": lambda: self.to_file("connectorx", link),
                "adbc": lambda: self.to_file("adbc", link)}

    def copies(self, *conditions):
        copies = [self.server.psql(COPY.format(condition)) for condition in conditions]
        return self.measure(*copies, env=self.server.credentials, keep=False)[0]

    def floor(self):
        return self.copies("")

    def floor_of_two(self):
        half = self.server.size() // 8192 // 2
        return self.copies(f" WHERE ctid < '({half},0)'", f" WHERE ctid >= '({half},0)'")

    def duckdb(self, threads):
        return self.to_file("duckdb", "postgres", threads, self.server.port)


if __name__ == "__main__":
    sys.exit(relational.main("compare_postgres", __doc__, LABELS, RATIOS, BELONGS_TO, Server, Bench))
