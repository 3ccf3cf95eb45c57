#!/usr/bin/env python3
"""Loads Telegraf-like `cpu` data into an InfluxDB 1.x on this machine, the same at each call.

  influxdb_load.py PORT DATABASE ROWS DAYS WRITERS

prints a JSON list: the first time stamp and the distance of the points in ns, and the size of the line
protocol in bytes. The database must exist. compare_influxdb.py calls this as a process of its own.
"""
import functools, http.client, json, math, random, sys
from concurrent.futures import ProcessPoolExecutor

SEED = 1
SERIES = 100
DAY = 86_400 * 10**9
START = 1_704_067_200 * 10**9  # 2024-01-01T00:00:00Z


@functools.cache
def connection(port):
    return http.client.HTTPConnection("127.0.0.1", port, timeout=120)


def write_batch(batch):
    """Up to 100 points of all series: 10,000 lines. Seeded by its place, so the order is free.

    Percentages are ticks of a host's CPUs in 10 s over their sum, as Telegraf has them: mostly of a sum that
    is round (so they are round), else of one that is a little off (so all digits are in use).
    """
    port, database, first, points, step = batch
    rng = random.Random(SEED * 1_000_003 + first)
    number, gauss, hosts, lines = rng.random, rng.gauss, [], []
    for i in range(SERIES):
        region = ["eu-central-1", "eu-west-1", "us-east-1", "us-west-2"][i % 4]
        key = f"cpu,datacenter={region}{'abc'[i % 3]},host=host-{i:03}.example.com,region={region} "
        hosts.append([key, 1000 * [1, 2, 4, 4, 16][i % 5], 0.02 + 0.5 * (i * 37 % SERIES / SERIES) ** 2, 0.0])
    for point in range(first, first + points):
        at = START + point * step
        by_day = 1 + 0.4 * math.sin(at % DAY / DAY * 2 * math.pi)
        for host in hosts:
            key, ticks, base, drift = host
            host[3] = drift = 0.9 * drift + 0.1 * base * gauss(0, 1)
            total = ticks if number() < 0.6 else ticks - 8 + int(number() * 17)
            user = int(total * min(0.7, max(0.0, base * by_day + drift)))
            system = int(user * (0.15 + 0.2 * number()))
            iowait = int(-math.log(1 - number()) * 6) if number() < 0.4 else 0
            nice = int(number() * 9) if number() < 0.03 else 0
            softirq = int(number() * 12)
            steal = int(number() * 5) if number() < 0.2 else 0
            idle = max(0, total - user - system - iowait - nice - softirq - steal)
            guest = user // 8 if base > 0.3 else 0
            values = [f"usage_{name}={100 * n / total}" for name, n in (
                ("guest", guest), ("idle", idle), ("iowait", iowait), ("nice", nice), ("softirq", softirq),
                ("steal", steal), ("system", system), ("user", user))]
            lines.append(f"{key}{','.join(values[1:] if number() < 0.02 else values)} {at}")
    body = "\n".join(lines).encode()
    link = connection(port)
    link.request("POST", f"/write?db={database}&precision=ns", body)
    answer = link.getresponse()
    message = answer.read()
    if answer.status != 204:
        raise RuntimeError(f"write: {answer.status} {message[:300]}")
    return len(body)


def main(port, database, rows, days, writers):
    points = int(rows) // SERIES
    step = max(1, int(int(days) * 86_400 / points)) * 10**9
    batches = [(int(port), database, first, min(100, points - first), step)
               for first in range(0, points, 100)]
    with ProcessPoolExecutor(int(writers)) as pool:
        size = sum(pool.map(write_batch, batches, chunksize=4))
    print(json.dumps([START, step, size]))


if __name__ == "__main__":
    main(*sys.argv[1:])
