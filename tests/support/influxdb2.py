#!/usr/bin/env python3
"""A STAND-IN for InfluxDB 2.x, for tests: buckets and mappings in front of a real InfluxDB 1.6, which keeps the points.

It behaves as the open source of 2.7 says, as far as a restore and an export by InfluxQL see it:
- `/api/v2/orgs`, `/api/v2/buckets` (list by pages, create, change), `/api/v2/dbrps` (list, create);
- `/api/v2/write`: 204; 404 for a bucket that is not there; 422 where types conflict; 400 for what cannot be read;
- `/query`, which finds a bucket by its mapping alone; `/ping` with the version.

It has not: Flux, tasks, users, that a line which cannot be read refuses the whole batch (1.6 writes the good lines).
The arguments are the address of the 1.6 and a token. It prints its own address to standard error.
"""

import json
import re
import sys
import urllib.error
import urllib.parse
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock

UPSTREAM, TOKEN = sys.argv[1], sys.argv[2]
ORG = "0ca2c4f5e6a70000"
BUCKETS, MAPPINGS, LOCK = {}, [], Lock()


def upstream(path, body, kind="application/x-www-form-urlencoded"):
    request = urllib.request.Request(f"http://{UPSTREAM}{path}", body, {"Content-Type": kind})
    try:
        with urllib.request.urlopen(request) as answer:
            return answer.status, answer.headers.get("Content-Type", ""), answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.headers.get("Content-Type", ""), error.read()


def statement(text):
    status, _, body = upstream("/query", urllib.parse.urlencode({"q": text}).encode())
    assert status == 200 and b'"error"' not in body, (text, body)


def quoted(name):
    return '"' + name.replace("\\", "\\\\").replace('"', '\\"') + '"'


def place(name):
    database, _, policy = name.partition("/")
    return database, policy or "autogen"


def keep(verb, name, rules):
    rule = rules[0] if rules else {}
    database, policy = place(name)
    keeps, shard = rule.get("everySeconds", 0), rule.get("shardGroupDurationSeconds", 604800)
    duration = f"{keeps}s" if keeps else "INF"
    if verb == "CREATE":
        statement(f"CREATE DATABASE {quoted(database)}")
        verb = "ALTER" if policy == "autogen" else "CREATE"
    statement(
        f"{verb} RETENTION POLICY {quoted(policy)} ON {quoted(database)} DURATION {duration} REPLICATION 1 SHARD DURATION {shard}s"
    )


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def answer(self, status, body=b"", kind="application/json"):
        body = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("X-Influxdb-Version", "v2.7.1")
        self.send_header("X-Influxdb-Build", "OSS")
        if status != 204:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if status != 204:
            self.wfile.write(body)

    def fail(self, status, code, message):
        self.answer(status, {"code": code, "message": message})

    def handle_any(self):
        url = urllib.parse.urlsplit(self.path)
        query = dict(urllib.parse.parse_qsl(url.query))
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        what = (self.command, url.path)
        if url.path == "/ping":
            return self.answer(204)
        if self.headers.get("Authorization") != f"Token {TOKEN}":
            return self.fail(401, "unauthorized", "unauthorized access")
        if url.path == "/query":
            status, kind, text = upstream("/query", body)
            return self.answer(status, text, kind)
        if what == ("GET", "/api/v2/orgs"):
            return self.answer(200, {"orgs": [{"id": ORG, "name": "org"}]})
        if what == ("GET", "/api/v2/buckets"):
            buckets = [bucket for bucket in BUCKETS.values() if bucket["id"] > query.get("after", "")]
            return self.answer(200, {"buckets": buckets[: int(query.get("limit", 20))]})
        if what == ("POST", "/api/v2/buckets"):
            asked = json.loads(body)
            assert asked["orgID"] == ORG
            if any(bucket["name"] == asked["name"] for bucket in BUCKETS.values()):
                return self.fail(422, "conflict", f"bucket with name {asked['name']} already exists")
            rules = asked["retentionRules"]
            keep("CREATE", asked["name"], rules)
            bucket = {"id": f"b{len(BUCKETS):015x}", "orgID": ORG, "type": "user", "name": asked["name"], "retentionRules": rules}
            BUCKETS[bucket["id"]] = bucket
            return self.answer(201, bucket)
        if self.command == "PATCH" and (found := re.fullmatch("/api/v2/buckets/(.+)", url.path)):
            bucket = BUCKETS.get(found[1])
            if bucket is None:
                return self.fail(404, "not found", "bucket not found")
            bucket["retentionRules"] = json.loads(body)["retentionRules"]
            keep("ALTER", bucket["name"], bucket["retentionRules"])
            return self.answer(200, bucket)
        if what == ("GET", "/api/v2/dbrps"):
            return self.answer(200, {"content": MAPPINGS})
        if what == ("POST", "/api/v2/dbrps"):
            mapping = {"id": f"d{len(MAPPINGS):015x}", **json.loads(body)}
            assert mapping["bucketID"] in BUCKETS
            MAPPINGS.append(mapping)
            return self.answer(201, mapping)
        if what == ("POST", "/api/v2/write"):
            assert (query["orgID"], query["precision"]) == (ORG, "ns")
            if not any(query["bucket"] in (bucket["name"], bucket["id"]) for bucket in BUCKETS.values()):
                return self.fail(404, "not found", f'bucket "{query["bucket"]}" not found')
            database, policy = place(query["bucket"])
            path = "/write?" + urllib.parse.urlencode({"db": database, "rp": policy, "precision": "ns"})
            status, _, text = upstream(path, body, "text/plain")
            error = json.loads(text).get("error", "") if text else ""
            if status == 400 and "field type conflict" in error:
                return self.fail(422, "unprocessable entity", f"failure writing points to database: {error}")
            if status == 400:
                return self.fail(400, "invalid", error)
            return self.answer(status, text)
        return self.fail(404, "not found", "path not found")

    def do_GET(self):
        with LOCK:
            self.handle_any()

    do_POST = do_PATCH = do_GET


server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
print(f"listening on 127.0.0.1:{server.server_address[1]}", file=sys.stderr, flush=True)
server.serve_forever()
