#!/usr/bin/env python3
"""What a tunnel costs: `moveout export` of a real PostgreSQL without one and through a plain TCP forwarder (socat),
side by side on this machine.

What it does is what compare_postgres.py does, with these contestants:
       floor         psql: COPY (SELECT …) TO STDOUT (FORMAT binary) to nowhere: what the server can deliver
       direct        moveout export, one chunk in flight, straight to the server
       tunnel        the same with a tunnel in the configuration, which moveout opens and ends
       by hand       the same through a forwarder that is there already: what the forwarder itself costs

The tunnel's wall time shall be at most 1.05 times that of `direct`, its opening and its end included.

Needs: what compare_postgres.py needs, and socat (Debian: apt-get install socat). The forwarder's CPU counts as the
client's in `tunnel`, as nobody's in `by hand`.

  benches/compare_tunnel.py --rows 4000000 --runs 5
"""
import shutil, subprocess, sys, time

import compare_postgres, contest, relational
from contest import Failure
from relational import DATABASE, USER

LABELS = {"floor": "floor", "moveout-c1": "direct", "tunnel": "tunnel", "by-hand": "by hand"}
RATIOS = [("tunnel", "moveout-c1", "wall"), ("by-hand", "moveout-c1", "wall"), ("tunnel", "by-hand", "wall"),
          ("moveout-c1", "floor", "wall")]
SOURCE = """archive = "archive"
concurrency = 1
[[source]]
name = "bench"
url = "postgres://{user}@{address}/{database}?sslmode=disable"
"""
# A name that leads nowhere: whoever connects comes through the tunnel.
TUNNEL = """[source.tunnel]
command = ["socat", "-b", "65536", "TCP-LISTEN:{{port}},bind=127.0.0.1,reuseaddr,fork,nodelay",
           "TCP:127.0.0.1:{port},nodelay"]
"""


class Bench(compare_postgres.Bench):
    def contestants(self):
        if not shutil.which("socat"):
            raise Failure("no socat found (Debian: apt-get install socat)")
        return {"floor": self.floor, "moveout-c1": lambda: self.exported(f"127.0.0.1:{self.server.port}"),
                "tunnel": lambda: self.exported("db.invalid:5432", TUNNEL.format(port=self.server.port)),
                "by-hand": self.by_hand}

    def exported(self, address, tunnel=""):
        archive, config = self.folder / "archive", self.folder / "bench.toml"
        shutil.rmtree(archive, ignore_errors=True)
        config.write_text(SOURCE.format(user=USER, address=address, database=DATABASE) + tunnel)
        run, _ = self.measure([self.args.moveout, "export", "--config", config], env=self.server.credentials)
        return run | {"bytes": self.counted(archive)}

    def by_hand(self):
        port = relational.free_port()
        command = ["socat", "-b", "65536", f"TCP-LISTEN:{port},bind=127.0.0.1,reuseaddr,fork,nodelay",
                   f"TCP:127.0.0.1:{self.server.port},nodelay"]
        forwarder = subprocess.Popen(command, stdin=subprocess.DEVNULL)
        try:
            time.sleep(0.3)
            return self.exported(f"127.0.0.1:{port}")
        finally:
            contest.stop_process(forwarder)


if __name__ == "__main__":
    sys.exit(relational.main("compare_tunnel", __doc__, LABELS, RATIOS, {}, compare_postgres.Server, Bench))
