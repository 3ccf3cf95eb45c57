#!/usr/bin/env python3
"""What compare_influxdb.py measures beside moveout; run by it, in the environment that it made.

  drain URL…                                read the answers, keep nothing (where there is no curl)
  csv PORT DATABASE BEGIN END FOLDER        requests' CSV stream, pyarrow.csv, ParquetWriter; a file a day
  frames PORT DATABASE BEGIN END FOLDER     DataFrameClient, ParquetWriter; a file a day
  count ARCHIVE                             [rows, bytes] of the Parquet files of an archive
  again ARCHIVE FILE                        each of them written again: [rows, bytes, CPU s, wall s]

csv and frames print how many rows they wrote, drain how many bytes each answer had.
"""
import glob, http.client, json, os, sys, time, urllib.parse

DAY = 86_400 * 10**9
TAGS = ["datacenter", "host", "region"]
FIELDS = [f"usage_{f}" for f in "guest idle iowait nice softirq steal system user".split()]


def drain(*urls):
    block = bytearray(256 * 1024)
    for url in urls:
        parts = urllib.parse.urlsplit(url)
        link = http.client.HTTPConnection(parts.netloc, timeout=600)
        link.request("GET", f"{parts.path}?{parts.query}", headers={"Accept": "application/x-msgpack"})
        answer, size = link.getresponse(), 0
        if answer.status != 200:
            sys.exit(f"{answer.status} {answer.read(500)}")
        while n := answer.readinto(block):
            size += n
        print(size)


def csv(port, database, begin, end, folder):
    import pyarrow as pa, pyarrow.csv, requests
    session = requests.Session()
    types = {"time": pa.int64()} | dict.fromkeys(TAGS, pa.string()) | dict.fromkeys(FIELDS, pa.float64())
    options = pa.csv.ConvertOptions(include_columns=list(types), column_types=types)
    schema = pa.schema(types | {"time": pa.timestamp("ns", "UTC")})

    def read(q):
        with session.get(f"http://127.0.0.1:{port}/query", stream=True, timeout=600,
                         headers={"Accept": "application/csv", "Accept-Encoding": "identity"},
                         params={"q": q, "epoch": "ns", "chunked": "true", "chunk_size": 10000}) as answer:
            answer.raise_for_status()
            for batch in pa.csv.open_csv(answer.raw, convert_options=options):
                yield pa.Table.from_batches([batch]).cast(schema)
    by_day(read, database, begin, end, folder)


def frames(port, database, begin, end, folder):
    import pyarrow as pa
    from influxdb import DataFrameClient
    client = DataFrameClient("127.0.0.1", int(port), database=database, timeout=600)
    by_day(lambda q: map(pa.Table.from_pandas, client.query(q).values()), database, begin, end, folder)


def by_day(read, database, begin, end, folder):
    import pyarrow.parquet as pq
    rows = 0
    for a in range(int(begin), int(end), DAY):
        writer = None
        for table in read(f'SELECT * FROM "{database}"."autogen"."cpu" '
                          f"WHERE time >= {a} AND time < {min(a + DAY, int(end))}"):
            writer = writer or pq.ParquetWriter(f"{folder}/{a}.parquet", table.schema, compression="zstd")
            writer.write(table)
            rows += table.num_rows
        if writer:
            writer.close()
    print(rows)


def count(archive):
    import pyarrow.parquet as pq
    files = glob.glob(f"{archive}/data/**/*.parquet", recursive=True)
    print(json.dumps([sum(pq.read_metadata(f).num_rows for f in files), sum(map(os.path.getsize, files))]))


def again(archive, target):
    import pyarrow.parquet as pq
    rows = size = cpu = wall = 0
    for file in glob.glob(f"{archive}/data/**/*.parquet", recursive=True):
        table = pq.ParquetFile(file).read()
        before = time.process_time(), time.monotonic()
        pq.write_table(table, target, compression="zstd")
        cpu, wall = cpu + time.process_time() - before[0], wall + time.monotonic() - before[1]
        rows, size = rows + table.num_rows, size + os.path.getsize(target)
    print(json.dumps([rows, size, cpu, wall]))


if __name__ == "__main__":
    {"drain": drain, "csv": csv, "frames": frames, "count": count, "again": again}[sys.argv[1]](*sys.argv[2:])
