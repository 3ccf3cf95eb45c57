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
import sys

import compare_postgres, relational
from relational import DATABASE

TARGET = relational.TARGET
LABELS = relational.RESTORE_LABELS | {"peer": "pg_restore -j2"}


class Bench(relational.RestoreBench):
    def prepare(self):
        half = self.server.size() // 8192 // 2
        for name, condition in (("all", ""), ("first", f" WHERE ctid < '({half},0)'"),
                                ("second", f" WHERE ctid >= '({half},0)'")):
            with (self.folder / f"{name}.copy").open("wb") as out:
                self.run(self.server.psql(compare_postgres.COPY.format(condition)), stdout=out)
        dump, link = self.folder / "dump", ["-h", "127.0.0.1", "-p", self.server.port, "-U", relational.USER]
        self.run(["pg_dump", *link, "-Fd", "-Z1", "-j2", "-f", dump, DATABASE])
        self.restore = ["pg_restore", *link, "-j2", "-d", TARGET, dump]
        # What the floor needs: the table alone.
        self.table = self.server.sql(
            "SELECT format('CREATE TABLE metrics (%s)', string_agg(format('%I %s', attname, "
            "format_type(atttypid, atttypmod)), ', ' ORDER BY attnum)) FROM pg_attribute "
            "WHERE attrelid = 'metrics'::regclass AND attnum > 0")

    def empty(self):
        self.server.sql(f"DROP DATABASE IF EXISTS {TARGET}", "postgres")
        self.server.sql(f"CREATE DATABASE {TARGET} TEMPLATE template0", "postgres")

    def ready(self):
        self.server.sql("CHECKPOINT")

    def load(self, name):
        # psql reads the file, as a client of a server elsewhere would.
        return self.server.psql(f"\\copy metrics FROM '{self.folder / name}.copy' (FORMAT binary)", TARGET)


if __name__ == "__main__":
    sys.exit(relational.main("compare_restore", __doc__, LABELS, relational.RESTORE_RATIOS, {}, compare_postgres.Server,
                             Bench))
