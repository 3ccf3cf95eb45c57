#!/usr/bin/env python3
"""What compare_restore_influxdb.py runs as processes of their own.

  restore_influxdb_peers.py lines FILE ROWS DAYS          writes the data of influxdb_load.py as line protocol, by time
  restore_influxdb_peers.py load PORT DATABASE FILE N     posts them by 5,000 lines on N connections, as a tuned script does
"""
import http.client, sys
from concurrent.futures import ProcessPoolExecutor
from types import SimpleNamespace

import influxdb_load

LINES = 5_000


def lines(path, rows, days):
    """The same batches, one after the other, into a file instead of a server."""
    points = int(rows) // influxdb_load.SERIES
    step = max(1, int(int(days) * 86_400 / points)) * 10**9
    with open(path, "wb") as file:
        def request(_method, _path, body):
            file.write(body + b"\n")
        answer = SimpleNamespace(status=204, read=lambda: b"")
        influxdb_load.connection = lambda _port: SimpleNamespace(request=request, getresponse=lambda: answer)
        for first in range(0, points, 100):
            influxdb_load.write_batch((0, "", first, min(100, points - first), step))


def post(part):
    port, database, path, number, connections = part
    link, sent = http.client.HTTPConnection("127.0.0.1", port, timeout=120), 0
    with open(path, "rb") as file:
        at = 0
        while batch := [line for _, line in zip(range(LINES), file)]:
            if at % connections == number:
                link.request("POST", f"/write?db={database}&precision=ns", b"".join(batch))
                answer = link.getresponse()
                message = answer.read()
                if answer.status != 204:
                    raise RuntimeError(f"write: {answer.status} {message[:300]}")
                sent += len(batch)
            at += 1
    return sent


def load(port, database, path, connections):
    connections = int(connections)
    parts = [(int(port), database, path, number, connections) for number in range(connections)]
    with ProcessPoolExecutor(connections) as pool:
        print(sum(pool.map(post, parts)))


if __name__ == "__main__":
    {"lines": lines, "load": load}[sys.argv[1]](*sys.argv[2:])
