#!/usr/bin/env python3
"""A STAND-IN for InfluxDB 2.x, for tests: buckets and mappings in front of a real InfluxDB 1.6, which keeps the points.

It behaves as a real 2.7.11 was seen to do, as far as a restore and an export by InfluxQL see it:
- `/api/v2/orgs`, `/api/v2/buckets` (list by pages, create, change; the names that are refused), `/api/v2/dbrps` (list,
  create; each bucket without a mapping of its own has a virtual one);
- `/api/v2/write`: 204; 404 for a bucket that is not there; 422 if types conflict, with the rest written; 400 for what
  cannot be read, with nothing written;
- `/query`, which finds a bucket by its mapping alone, says `0s` and `168h0m0s` of every retention policy, and does not
  implement the statements about shards, users, continuous queries and subscriptions; `/ping` with the version.

The real one runs the same tests if MOVEOUT_TEST_INFLUXD2 names its program. The stand-in has not: Flux, tasks, users.
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


def scratch(body):
    """Whether 1.6 can read all lines: what it says of them if it cannot."""
    statement("DROP DATABASE scratch")
    statement("CREATE DATABASE scratch WITH SHARD DURATION 5200w")
    status, _, text = upstream("/write?db=scratch&precision=ns", body, "text/plain")
    error = json.loads(text).get("error", "") if status == 400 else ""
    if "unable to parse" in error:
        return error.removeprefix("partial write: ")
    for line in body.split(b"\n"):  # 2.x keeps these for itself
        if found := re.match(rb"[^ ]*?,(_field|_measurement|time)=", line):
            return f"unable to parse '{line.decode()}': cannot use reserved tag key \"{found[1].decode()}\""
    return None


def mappings():
    mapped = {mapping["bucketID"] for mapping in MAPPINGS}
    virtual = [
        {"id": bucket["id"], "database": place(bucket["name"])[0], "retention_policy": place(bucket["name"])[1],
         "default": "/" not in bucket["name"], "virtual": True, "orgID": ORG, "bucketID": bucket["id"]}
        for bucket in BUCKETS.values() if bucket["id"] not in mapped]
    return MAPPINGS + virtual


def refused(name):
    if name.startswith("_"):
        return f"bucket name {name} is invalid. Buckets may not start with underscore"
    if '"' in name:
        return f"bucket name {name} is invalid. Bucket names may not include quotation marks"


def unmappable(name):
    return name in ("", ".", "..") or not name.isprintable() or "/" in name or "\\" in name


NOT_THERE = re.compile(
    r"(SHOW (?:SHARDS|SHARD GROUPS|CONTINUOUS QUERIES|SUBSCRIPTIONS|USERS|GRANTS|DIAGNOSTICS|STATS)|CREATE DATABASE)\b")


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
        self.send_header("X-Influxdb-Version", "v2.7.11")
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
            asked = (urllib.parse.parse_qs(body.decode()) | urllib.parse.parse_qs(url.query)).get("q", [""])[0]
            if found := NOT_THERE.match(asked):
                error = f"not implemented: {found[1]}"
                return self.answer(200, {"results": [{"statement_id": 0, "error": error}]})
            if asked.startswith("SHOW TAG KEYS ON "):  # of the default policy alone, whatever is named
                first = [m for m in mappings() if f"ON {quoted(m['database'])}" in asked and m["default"]]
                asked = asked.split(" FROM ")[0] + (f" FROM {quoted(first[0]['retention_policy'])}./.*/" if first else "")
                form = urllib.parse.parse_qs(body.decode()) | {"q": [asked]}
                body = urllib.parse.urlencode({key: values[0] for key, values in form.items()}).encode()
            status, kind, text = upstream("/query", body)
            if status == 400:
                error = json.loads(text)["error"].replace("error parsing query", "failed to parse query")
                return self.fail(400, "invalid", error)
            if asked.startswith(("SHOW RETENTION POLICIES", "SHOW DATABASES")):
                answer = json.loads(text)
                mapped = {mapping["database"] for mapping in mappings()}
                for series in answer["results"][0].get("series", []):
                    if series.get("name") == "databases":
                        series["values"] = [row for row in series.get("values", []) if row[0] in mapped]
                    else:
                        for row in series.get("values", []):
                            row[1:3] = ["0s", "168h0m0s"]
                return self.answer(status, answer)
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
            if why := refused(asked["name"]):
                return self.fail(400, "invalid", why)
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
            return self.answer(200, {"content": mappings()})
        if what == ("POST", "/api/v2/dbrps"):
            mapping = {"id": f"d{len(MAPPINGS):015x}", "virtual": False, **json.loads(body)}
            assert mapping["bucketID"] in BUCKETS
            if unmappable(mapping["database"]) or unmappable(mapping["retention_policy"]):
                return self.fail(400, "invalid", "DBRP provided is invalid")
            MAPPINGS.append(mapping)
            return self.answer(201, mapping)
        if what == ("POST", "/api/v2/write"):
            assert (query["orgID"], query["precision"]) == (ORG, "ns")
            if not any(query["bucket"] in (bucket["name"], bucket["id"]) for bucket in BUCKETS.values()):
                return self.fail(404, "not found", f'bucket "{query["bucket"]}" not found')
            if why := scratch(body):
                return self.fail(400, "invalid", why)
            database, policy = place(query["bucket"])
            path = "/write?" + urllib.parse.urlencode({"db": database, "rp": policy, "precision": "ns"})
            status, _, text = upstream(path, body, "text/plain")
            error = json.loads(text).get("error", "") if text else ""
            if status == 400:  # beyond retention, or too long
                return self.fail(422, "unprocessable entity", f"failure writing points to database: {error}")
            return self.answer(status, text)
        return self.fail(404, "not found", "path not found")

    def do_GET(self):
        with LOCK:
            self.handle_any()

    do_POST = do_PATCH = do_GET


server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
print(f"listening on 127.0.0.1:{server.server_address[1]}", file=sys.stderr, flush=True)
server.serve_forever()
