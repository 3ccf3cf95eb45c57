#!/usr/bin/env python3
"""Compares `moveout restore` into a MariaDB with its peers, side by side on this machine.

It starts a MariaDB of its own and fills the table `metrics` as compare_mariadb.py does. The table is exported by moveout,
written to files by SELECT … INTO OUTFILE (whole, and its two halves), and dumped by mariadb-dump. Then, in --runs rounds,
each contestant puts the same rows into an empty database. The keys of the table are there before the rows.
  floor         mariadb: LOAD DATA LOCAL INFILE of the file
  floor x2      two of these at once, half of the rows each
  moveout -c N  moveout restore --concurrency N: definitions, rows, the comparison at the end
  dump          mariadb: the file of the dump
Rows are counted; a wrong count is a failure. With --no-index there is the primary key alone.

Needs: Linux, Python 3.11, MariaDB's server and client (Debian: apt-get install mariadb-server), moveout built with
`cargo build --release`.

  benches/compare_restore_mariadb.py --no-index --rows 2000000 --runs 5 --json target/compare_restore_mariadb.json
"""
import sys

import compare_mariadb, relational
from relational import DATABASE

TARGET = relational.TARGET
LABELS = relational.RESTORE_LABELS | {"peer": "dump"}


class Bench(relational.RestoreBench):
    def prepare(self):
        half = self.args.rows // 2
        for name, condition in (("all", "1"), ("first", f"id <= {half}"), ("second", f"id > {half}")):
            file = self.server.home / f"{name}.copy"  # the server writes it
            self.server.sql(f"SELECT * FROM metrics WHERE {condition} INTO OUTFILE '{file}'")
            file.rename(self.folder / file.name)
        dump = ["mariadb-dump", "--no-defaults", "--protocol=TCP", "--host=127.0.0.1", f"--port={self.server.port}",
                f"--user={relational.USER}", f"--result-file={self.folder / 'dump.sql'}", DATABASE]
        self.run(dump)
        self.restore = [*self.server.client(TARGET), f"--execute=source {self.folder / 'dump.sql'}"]
        self.table = self.server.sql("SHOW CREATE TABLE metrics").split("\t", 1)[1].replace("\\n", " ")

    def empty(self):
        self.server.sql(f"DROP DATABASE IF EXISTS {TARGET}; CREATE DATABASE {TARGET}")

    def load(self, name):
        load = f"LOAD DATA LOCAL INFILE '{self.folder / name}.copy' INTO TABLE metrics CHARACTER SET utf8mb4"
        return [*self.server.client(TARGET), "--local-infile=1", f"--execute={load}"]


if __name__ == "__main__":
    sys.exit(relational.main("compare_restore_mariadb", __doc__, LABELS, relational.RESTORE_RATIOS, {},
                             compare_mariadb.Server, Bench))
