#!/usr/bin/env python3
"""Compares `moveout export` with its peers on a real MariaDB, side by side on this machine.

What it does, in this order:
  1. makes a virtual environment in target/bench-venv-relational and installs the peers into it; one that
     cannot be installed is said, and left out;
  2. starts a MariaDB of its own on a free loopback port in a temporary folder, with room in memory for the
     table; at the end, however that comes, it is stopped and the folder removed. No other server is touched;
  3. fills the table `metrics`: a key, a datetime(6), two texts, eight doubles, a bigint, a text that is
     mostly null;
  4. runs the contestants in turn, --runs rounds, each as a process of its own, and prints a table:
       floor         mariadb_drain.py: a prepared statement, its rows in the binary protocol to nowhere
       text floor    mariadb --quick --batch to nowhere: the text protocol, and the client's printing
       moveout -c N  moveout export --concurrency N
       connectorx    binary protocol, arrow_stream, pyarrow's ParquetWriter
       DuckDB N      DuckDB's mysql extension (text protocol), COPY to Parquet, N threads

Needs: Linux, Python 3.11, MariaDB's server and client (Debian: apt-get install mariadb-server), moveout
built with `cargo build --release`. Client CPU is user + system time of the contestant's processes, server
CPU that of mariadbd meanwhile, RSS the largest ru_maxrss (never below this script's own). Rows are counted;
a wrong count is a failure.

  benches/compare_mariadb.py --rows 5000000 --runs 5 --json target/compare_mariadb.json
  benches/compare_mariadb.py --only floor,moveout-c1,connectorx
"""
import shutil, sys
from pathlib import Path

import relational
from contest import Failure
from relational import DATABASE, DAYS, HOSTS, PASSWORD, USER

HERE = Path(__file__).resolve().parent
LABELS = {"floor": "floor", "moveout-c1": "moveout -c 1", "connectorx": "connectorx", "moveout-c2": "moveout -c 2",
          "text-floor": "text floor", "duckdb-1": "DuckDB 1", "duckdb-2": "DuckDB 2"}
BELONGS_TO = {"duckdb-1": "duckdb", "duckdb-2": "duckdb", "connectorx": "connectorx"}
RATIOS = [("moveout-c1", "floor", "wall"), ("moveout-c1", "connectorx", "wall"), ("moveout-c2", "connectorx", "wall"),
          ("moveout-c1", "connectorx", "client_cpu"), ("moveout-c1", "floor", "server_cpu"),
          ("moveout-c1", "connectorx", "bytes"), ("moveout-c1", "duckdb-2", "bytes")]
QUERY = "SELECT * FROM metrics"


class Server(relational.Server):
    def __init__(self, folder):
        if not (mariadbd := shutil.which("mariadbd") or shutil.which("mariadbd", path="/usr/sbin")):
            raise Failure("no MariaDB found (Debian: apt-get install mariadb-server)")
        self.log, self.home = folder / "mariadb.log", relational.folder_of_server(folder / "mariadb")
        data, users = self.home / "data", self.home / "users.sql"
        relational.run(["mariadb-install-db", "--no-defaults", f"--datadir={data}", f"--tmpdir={self.home}",
                        "--skip-test-db", "--skip-name-resolve", "--auth-root-authentication-method=normal"],
                       cwd=self.home, **relational.unprivileged())
        users.write_text(f"DELETE FROM mysql.global_priv WHERE User IN ('', 'root');\nFLUSH PRIVILEGES;\n"
                         f"CREATE USER {USER}@'127.0.0.1' IDENTIFIED BY '{PASSWORD}';\n"
                         f"GRANT ALL ON *.* TO {USER}@'127.0.0.1';\n")
        self.port = relational.free_port()
        self.url = f"mysql://{USER}@127.0.0.1:{self.port}/{DATABASE}"
        self.credentials = {"MYSQL_PWD": PASSWORD}
        self.command = [
            mariadbd, "--no-defaults", f"--datadir={data}", f"--tmpdir={self.home}", f"--socket={self.home}/socket",
            f"--pid-file={self.home}/pid", f"--init-file={users}", "--bind-address=127.0.0.1", f"--port={self.port}",
            "--skip-name-resolve", "--character-set-server=utf8mb4", "--innodb-buffer-pool-size=4G",
            "--innodb-log-file-size=1G", "--innodb-flush-log-at-trx-commit=0", "--innodb-flush-method=nosync"]

    def answers(self):
        try:
            return self.sql("SELECT 1", "") == "1"
        except Failure:
            return False

    def client(self, database=DATABASE):
        return ["mariadb", "--no-defaults", "--batch", "--quick", "--skip-column-names", "--protocol=TCP",
                "--host=127.0.0.1", f"--port={self.port}", f"--user={USER}", f"--database={database}"]

    def sql(self, text, database=DATABASE):
        return relational.run(self.client(database), text, self.credentials)

    def fill(self, args):
        self.sql(f"CREATE DATABASE {DATABASE}", "")
        step = DAYS * 86400 * HOSTS * 10**6 // args.rows
        # Some doubles have all their digits in use, some are rounded as gauges are, one is nearly constant.
        self.sql(f"""CREATE TABLE metrics (id bigint AUTO_INCREMENT PRIMARY KEY, at datetime(6) NOT NULL,
            host varchar(20), region varchar(20), cpu double, memory double, `load` double, ratio double, sent double,
            received double, errors double, latency double, counter bigint, note varchar(20));
            SET unique_checks = 0; SET foreign_key_checks = 0;
            INSERT INTO metrics SELECT seq + 1,
            TIMESTAMP('2024-01-01') + INTERVAL (seq DIV {HOSTS}) * {step} MICROSECOND,
            CONCAT('host', seq % {HOSTS}), ELT(1 + seq % 4, 'eu-west-1', 'eu-central-1', 'us-east-1', 'us-west-2'),
            FLOOR(RAND(1) * 10000) / 100e0, FLOOR(RAND(2) * 10000) / 100e0, 100 * SIN(seq / 1000e0), RAND(3),
            FLOOR(RAND(4) * 1000), (seq % 1000) / 8e0, seq % 50 = 0, EXP(RAND(5) * 10), seq,
            IF(seq % 10 = 0, CONCAT('note ', seq % 1000), NULL)
            FROM seq_0_to_{args.rows - 1}""")
        if not args.no_index:
            self.sql("CREATE INDEX of_time ON metrics (at)")
        self.sql("ANALYZE TABLE metrics")

    def size(self):
        return int(self.sql("SELECT data_length FROM information_schema.tables "
                            f"WHERE table_schema = '{DATABASE}' AND table_name = 'metrics'"))

    def version(self):
        return "MariaDB " + self.sql("SELECT version()").partition("-")[0]


class Bench(relational.Bench):
    def contestants(self):
        link = f"mysql://{USER}:{PASSWORD}@127.0.0.1:{self.server.port}/{DATABASE}"
        return {"floor": self.floor, "moveout-c1": lambda: self.moveout(1),
                "connectorx": lambda: self.to_file("connectorx", link), "moveout-c2": lambda: self.moveout(2),
                "text-floor": self.text_floor, "duckdb-1": lambda: self.duckdb(1), "duckdb-2": lambda: self.duckdb(2)}

    def floor(self):
        drain = [sys.executable, HERE / "mariadb_drain.py", str(self.server.port), USER, DATABASE, QUERY]
        run, [text] = self.measure(drain, env=self.server.credentials)
        if int(text) < 90 * self.args.rows:  # 10 numbers of 8 bytes, a time and two texts
            raise Failure(f"only {text} bytes for {self.args.rows} rows")
        return run

    def text_floor(self):
        query = [*self.server.client(), f"--execute={QUERY}"]
        return self.measure(query, env=self.server.credentials, keep=False)[0]

    def duckdb(self, threads):
        return self.to_file("duckdb", "mysql", threads, self.server.port)


if __name__ == "__main__":
    sys.exit(relational.main("compare_mariadb", __doc__, LABELS, RATIOS, BELONGS_TO, Server, Bench))
