#!/usr/bin/env python3
"""What compare_postgres.py and compare_mariadb.py measure beside moveout; run by them, in the environment
that they made. All read the table `metrics`, and write Parquet with zstd.

  duckdb postgres|mysql THREADS PORT FILE   COPY from a scanner's table
  connectorx URL FILE                       binary protocol, arrow_stream, pyarrow's ParquetWriter
  adbc URL FILE                             pyarrow's ParquetWriter
  count PATH                                [rows, bytes] of a Parquet file, or of those of an archive
"""
import glob, importlib.util, json, os, sys
from pathlib import Path

QUERY = "SELECT * FROM metrics"


def duckdb(kind, threads, port, file):
    import duckdb
    # The package carries the extension; without it DuckDB would download one.
    package = Path(importlib.util.find_spec(f"duckdb_extension_{kind}_scanner").origin).parent
    [extension] = package.rglob(f"{kind}_scanner.duckdb_extension")
    link = duckdb.connect()
    link.execute(f"SET threads = {threads}")
    link.execute(f"LOAD '{extension}'")
    database = "dbname" if kind == "postgres" else "database"
    link.execute(f"ATTACH 'host=127.0.0.1 port={port} user=bench password=bench {database}=bench' "
                 f"AS source (TYPE {kind}, READ_ONLY)")
    schema = "public" if kind == "postgres" else "bench"
    link.execute(f"COPY (SELECT * FROM source.{schema}.metrics) TO '{file}' (FORMAT parquet, COMPRESSION zstd)")


def connectorx(url, file):
    import connectorx
    write(connectorx.read_sql(url, QUERY, protocol="binary", return_type="arrow_stream", batch_size=65536), file)


def adbc(url, file):
    from adbc_driver_postgresql import dbapi
    with dbapi.connect(url) as link, link.cursor() as cursor:
        cursor.execute(QUERY)
        write(cursor.fetch_record_batch(), file)


def write(reader, file):
    import pyarrow.parquet as pq
    with pq.ParquetWriter(file, reader.schema, compression="zstd") as writer:
        for batch in reader:
            writer.write_batch(batch)


def count(path):
    import pyarrow.parquet as pq
    files = [path] if os.path.isfile(path) else glob.glob(f"{path}/data/**/*.parquet", recursive=True)
    print(json.dumps([sum(pq.read_metadata(f).num_rows for f in files), sum(map(os.path.getsize, files))]))


if __name__ == "__main__":
    {"duckdb": duckdb, "connectorx": connectorx, "adbc": adbc, "count": count}[sys.argv[1]](*sys.argv[2:])
