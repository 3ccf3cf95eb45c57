#!/usr/bin/env python3
"""Compares `moveout restore` into a PostgreSQL with its peers, side by side on this machine.

It starts a PostgreSQL of its own and fills the table `metrics` as compare_postgres.py does. The table is exported by
moveout, written to binary files by COPY (whole, and its two halves), and dumped by `pg_dump -Fd -Z1`. Then, in --runs
rounds, each contestant puts the same rows into an empty database:
  floor         psql: COPY FROM STDIN (FORMAT binary) of the file into a table that is there; no index
  floor x2      two of these at once, half of the rows each
  moveout -c N  moveout restore --concurrency N: definitions, rows, indexes, the comparison at the end
  pg_restore    pg_restore -j2 of the dump
Rows are counted; a wrong count is a failure. With --no-index there is none, so that only rows are compared.

Needs: Linux, Python 3.11, PostgreSQL's server (Debian: apt-get install postgresql), moveout built with
`cargo build --release`.

  benches/compare_restore.py --no-index --rows 4000000 --runs 5 --json target/compare_restore.json
"""
import subprocess, sys

import compare_postgres, contest, relational
from contest import expect
from relational import DATABASE

LABELS = {"floor": "floor", "moveout-c1": "moveout -c 1", "floor-x2": "floor x2", "moveout-c2": "moveout -c 2",
          "pg_restore": "pg_restore -j2"}
RATIOS = [("moveout-c1", "floor", "wall"), ("moveout-c1", "floor", "server_cpu"), ("moveout-c2", "floor-x2", "wall"),
          ("moveout-c2", "pg_restore", "wall"), ("moveout-c2", "pg_restore", "server_cpu")]
TARGET = "target"




class Bench(relational.Bench):
    def __init__(self, *args):
        super().__init__(*args)
        half = self.server.size() // 8192 // 2
        for name, condition in (("all", ""), ("first", f" WHERE ctid < '({half},0)'"),
                                ("second", f" WHERE ctid >= '({half},0)'")):
            with (self.folder / f"{name}.copy").open("wb") as out:
                self.run(self.server.psql(compare_postgres.COPY.format(condition)), stdout=out)
        self.archive, self.dump = self.folder / "restored-archive", self.folder / "dump"
        self.run([self.args.moveout, "export", "--source", self.server.url, "--archive", self.archive, "--quiet"])
        link = ["-h", "127.0.0.1", "-p", str(self.server.port), "-U", relational.USER]
        self.run(["pg_dump", *link, "-Fd", "-Z1", "-j2", "-f", self.dump, DATABASE])
        self.restore = ["pg_restore", *link, "-j2", "-d", TARGET, self.dump]
        # What the floor needs: the table alone.
        self.table = self.server.sql(
            "SELECT format('CREATE TABLE metrics (%s)', string_agg(format('%I %s', attname, "
            "format_type(atttypid, atttypmod)), ', ' ORDER BY attnum)) FROM pg_attribute "
            "WHERE attrelid = 'metrics'::regclass AND attnum > 0")

    def run(self, command, stdout=subprocess.DEVNULL):
        env = contest.clean_environment() | self.server.credentials
        subprocess.run(list(map(str, command)), check=True, stdout=stdout, env=env)

    def contestants(self):
        return {"floor": self.floor, "moveout-c1": lambda: self.moveout(1), "floor-x2": self.floor_of_two,
                "moveout-c2": lambda: self.moveout(2), "pg_restore": self.pg_restore}

    def empty(self, table=""):
        self.server.sql(f"DROP DATABASE IF EXISTS {TARGET}", "postgres")
        self.server.sql(f"CREATE DATABASE {TARGET} TEMPLATE template0", "postgres")
        if table:
            self.server.sql(table, TARGET)
        self.server.sql("CHECKPOINT")

    def measured(self, *commands, env=None):
        run, _ = self.measure(*commands, env=self.server.credentials | (env or {}))
        expect(int(self.server.sql("SELECT count(*) FROM metrics", TARGET)), self.args.rows)
        return run

    def copies(self, *names):
        self.empty(self.table)
        # psql reads the file, as a client of a server elsewhere would.
        copy = "\\copy metrics FROM '{}' (FORMAT binary)"
        return self.measured(*[self.server.psql(copy.format(self.folder / f"{n}.copy"), TARGET) for n in names])

    def floor(self):
        return self.copies("all")

    def floor_of_two(self):
        return self.copies("first", "second")

    def moveout(self, concurrency, program=None):
        self.empty()
        url = self.server.url.removesuffix(DATABASE) + TARGET
        command = [program or self.args.moveout, "restore", self.archive, "--target", url, "--concurrency", concurrency]
        return self.measured(list(map(str, command)), env={"XDG_STATE_HOME": str(self.folder)})

    def pg_restore(self):
        self.empty()
        return self.measured(list(map(str, self.restore)))


if __name__ == "__main__":
    sys.exit(relational.main("compare_restore", __doc__, LABELS, RATIOS, {}, compare_postgres.Server, Bench))
