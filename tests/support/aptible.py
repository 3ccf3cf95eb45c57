#!/usr/bin/env python3
"""A STAND-IN for `aptible`, the CLI of Aptible, for tests: no request leaves this machine.

It behaves as the notes on aptible-cli 0.26.6 say that the real one does:
1.1 before anything it reports by telemetry, which takes a while;
1.2 `db:tunnel` writes to standard error alone, with the password twice and without the query of the URL;
1.3 every failure ends with 1; SIGINT closes the tunnel (SIGHUP to ssh, five seconds, SIGKILL); SIGTERM ends it and
    leaves its ssh behind; SIGKILL leaves the copy of the key besides; a tunnel ends after its limit (24 hours there);
1.4 results go to standard output, logs to standard error; `db:list` has passwords in its JSON;
1.5 APTIBLE_ACCESS_TOKEN is the login;
1.6 ways in by type, with TLS. PostgreSQL and MySQL speak TLS themselves; for Redis and InfluxDB this ends the TLS.

What there is stands in the file that APTIBLE_STAND_IN names, as JSON:
{"folder", "token", "domain", "delay_seconds", "environments": [{"handle"}], "databases": [{"environment", "handle",
"type", "version", "status", "disk_size", "credentials": [{"type", "connection_url", "default", "port", "tls"}],
"cut_after", "fail_first", "limit_seconds"}], "backups": {HANDLE: [...]}, "orphaned": [...]}
`cut_after` is after how many bytes from the server its ssh crashes, once. Files in "folder" tell what ran.
"""

import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from urllib.parse import urlsplit

STATE = json.loads(Path(os.environ["APTIBLE_STAND_IN"]).read_text())
FOLDER = Path(STATE["folder"])


class Failed(Exception):
    pass


def log(line):
    sys.stderr.write(line + "\n")
    sys.stderr.flush()


def once(name):
    """Whether this is the first time, over all processes."""
    try:
        os.close(os.open(FOLDER / name, os.O_CREAT | os.O_EXCL))
        return True
    except FileExistsError:
        return False


def render(value):
    if os.environ.get("APTIBLE_OUTPUT_FORMAT") == "json":
        print(json.dumps(value, indent=2))
    else:
        raise Failed("this stand-in renders JSON alone")


def environment(handle):
    found = [e for e in STATE["environments"] if e["handle"] == handle]
    if not found:
        return None
    at = STATE["environments"].index(found[0]) + 1
    return {"id": at, "handle": handle, "created_at": "2023-01-01T00:00:00Z"}


def database(handle, env):
    if env is not None and environment(env) is None:
        raise Failed(f"Could not find environment {env}")
    found = [d for d in STATE["databases"] if d["handle"] == handle and env in (None, d["environment"])]
    if not found:
        raise Failed(f"Could not find database {handle}")
    if len(found) > 1:
        raise Failed("Multiple databases exist, please specify with --environment")
    return found[0]


def listed(at, db):
    of = {"id": at, "handle": db["handle"], "created_at": "2023-01-01T00:00:00Z"}
    if not db["handle"].startswith("aws:rds::"):
        default = next((c["connection_url"] for c in db["credentials"] if c["default"]), None)
        of |= {"type": db["type"], "version": db["version"], "status": db["status"], "connection_url": default}
        of["credentials"] = [{k: c[k] for k in ("type", "connection_url", "default")} for c in db["credentials"]]
    of["environment"] = environment(db["environment"]) or {"id": -9999, "handle": db["environment"], "created_at": None}
    if "disk_size" in db:
        of |= {"disk_type": "gp3", "disk_size": db["disk_size"], "disk_modification_progress": None,
               "disk_modification_status": None, "disk_provisioned_iops": 3000}
        of |= {"container_size": 1024, "container_profile": "m"}
    return of


def tunnel(handle, options):
    db = database(handle, options.get("environment"))
    if db["status"] != "provisioned":
        raise Failed(f"Database {handle} is not provisioned")
    kind, all_kinds = options.get("type"), [c["type"] for c in db["credentials"]]
    chosen = [c for c in db["credentials"] if (c["type"] == kind if kind else c["default"])]
    if not chosen:
        err = f"No credential with type {kind} for database" if kind else "No default credential for database"
        raise Failed(f"{err}, valid credential types: {', '.join(all_kinds)}")
    way = chosen[0]
    log(f"Creating {way['type']} tunnel to {handle}...")
    if kind is None:
        log("Use --type TYPE to specify a tunnel type")
        log(f"Valid types for {handle}: {', '.join(all_kinds)}")
    port = int(options.get("port") or 0) or free_port()
    key = Path(tempfile.gettempdir()) / f"aptible-ssh-key-{os.getpid()}"
    try:
        hold(db, handle, way, port, key)
    finally:
        key.unlink(missing_ok=True)


def hold(db, handle, way, port, key):
    key.write_text("-----BEGIN OPENSSH PRIVATE KEY-----\n")
    # Of its own it has a pipe for each stream, no standard input, and the group of the CLI.
    command = [sys.executable, __file__, "--as-ssh", f"{db['environment']}.{handle}", str(port), way["type"]]
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    (FOLDER / f"ssh-{child.pid}").touch()

    def terminated(*_):
        key.unlink(missing_ok=True)
        os._exit(143)  # without a word to ssh

    signal.signal(signal.SIGTERM, terminated)
    if not child.stdout.readline():
        raise Failed(f"Tunnel did not come up: {child.stderr.read().decode()}")
    url = urlsplit(way["connection_url"])
    user, password = url.username or "", url.password
    host = f"localhost.{STATE['domain']}"
    log(f"Connect at {url.scheme}://{user}:{password}@{host}:{port}{url.path}")
    log("Or, use the following arguments:")
    log(f"* Host: {host}")
    log(f"* Port: {port}")
    if user:
        log(f"* Username: {user}")
    log(f"* Password: {password}")
    if url.path.lstrip("/"):
        log(f"* Database: {url.path.lstrip('/')}")
    log("Connected. Ctrl-C to close connection.")
    try:
        status = child.wait()
    except KeyboardInterrupt:
        log("Closing tunnel")
        stop(child)
        return
    if status == 124:
        raise Failed("Tunnel timed out")
    if status != 0:
        raise Failed(f"Tunnel crashed ({status if status > 0 else ''})")


def stop(child):
    child.send_signal(signal.SIGHUP)
    try:
        child.wait(5)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def as_ssh(name, port, kind):
    """Forwards a port, as ssh does for the CLI."""
    db = next(d for d in STATE["databases"] if f"{d['environment']}.{d['handle']}" == name)
    way = next(c for c in db["credentials"] if c["type"] == kind)
    for attempt in range(db.get("fail_first", 0)):
        if once(f"failed-{name}-{attempt}"):
            sys.stderr.write("ssh: connect to host bastion port 22: Connection refused\n")
            sys.exit(255)
    if "limit_seconds" in db:
        threading.Timer(db["limit_seconds"], lambda: os._exit(124)).start()
    try:
        listener = socket.create_server(("127.0.0.1", port))
    except OSError:
        sys.stderr.write(f"bind [127.0.0.1]:{port}: Address already in use\n")
        sys.exit(255)
    print("TUNNEL READY", flush=True)
    seen = [0]
    while True:
        client, _ = listener.accept()
        threading.Thread(target=forward, args=(client, way, db, name, seen), daemon=True).start()


def forward(client, way, db, name, seen):
    try:
        if way.get("tls"):
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(FOLDER / "server.crt", FOLDER / "server.key")
            client = context.wrap_socket(client, server_side=True)
        server = socket.create_connection(("127.0.0.1", way["port"]))
    except OSError:
        client.close()
        return
    client.settimeout(None)

    def copy(source, target, counts):
        try:
            while data := source.recv(16384):
                if counts:
                    seen[0] += len(data)
                    if seen[0] >= db.get("cut_after", 1 << 62) and once(f"cut-{name}"):
                        os._exit(255)
                target.sendall(data)
        except OSError:
            pass
        for end in (source, target):
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    threading.Thread(target=copy, args=(client, server, False), daemon=True).start()
    copy(server, client, True)


def main(args):
    if args[:1] == ["--as-ssh"]:
        return as_ssh(args[1], int(args[2]), args[3])
    if os.environ.get("APTIBLE_OUTPUT_FORMAT", "text") not in ("text", "json"):
        raise Failed("Invalid output format")
    with open(FOLDER / "asked", "a") as asked:
        asked.write(" ".join(args) + "\n")
    time.sleep(STATE.get("delay_seconds", 0))
    token = os.environ.get("APTIBLE_ACCESS_TOKEN")
    if token is None:
        raise Failed("Could not read token: please run aptible login or set APTIBLE_ACCESS_TOKEN")
    if token != STATE["token"]:
        raise Failed("API authentication error: please run aptible login")
    command, handles, options, rest = args[0], [], {}, list(args[1:])
    while rest:
        arg = rest.pop(0)
        if arg.startswith("--"):
            options[arg[2:].replace("env", "environment") if arg == "--env" else arg[2:]] = rest.pop(0)
        else:
            handles.append(arg)
    env = options.get("environment")
    if command in ("environment:list", "db:list", "backup:orphaned") and env and environment(env) is None:
        raise Failed("Specified account does not exist")
    if command == "environment:list":
        stack = {"name": "shared", "id": 1, "region": "us-east-1", "outbound_ip_addresses": ["192.0.2.1"]}
        render([environment(e["handle"]) | {"stack": stack} for e in STATE["environments"]])
    elif command == "db:list":
        known = enumerate(STATE["databases"], 1)
        render([listed(at, db) for at, db in known if env in (None, db["environment"])])
    elif command == "backup:list":
        database(handles[0], env)
        render(STATE.get("backups", {}).get(handles[0], []))
    elif command == "backup:orphaned":
        render(STATE.get("orphaned", []))
    elif command == "db:tunnel":
        tunnel(handles[0], options)
    else:
        raise Failed(f'Could not find command "{command}".')


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except Failed as failed:
        log(str(failed))
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)  # before `Connected.`: its ssh stays, as with the real one
