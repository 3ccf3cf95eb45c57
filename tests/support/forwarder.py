"""The program of a tunnel for tests: forwards a local port to another, and fails in the ways that are asked for.

    forwarder.py FOLDER PORT TARGET_HOST TARGET_PORT [KEY[=VALUE]]…

In FOLDER it leaves `pids` (all processes of all starts), `starts` (a line for each, with its arguments) and
`served` (bytes from the server). A key that begins with `once-` holds for the first start alone.
"""

import os
import signal
import socket
import sys
import threading
import time

folder, port, host, target = sys.argv[1], int(sys.argv[2]), sys.argv[3], int(sys.argv[4])


def note(name, text):
    with open(os.path.join(folder, name), "a") as file:
        file.write(text + "\n")


def say(text, to=sys.stderr):
    print(text, file=to, flush=True)


inner = "inner" in sys.argv
if not inner:
    note("starts", " ".join(sys.argv[2:]))
note("pids", str(os.getpid()))
first = len(open(os.path.join(folder, "starts")).readlines()) == 1
options = {}
for option in sys.argv[5:]:
    key, _, value = option.partition("=")
    if not key.startswith("once-"):
        options[key] = value
    elif first:
        options[key.removeprefix("once-")] = value

if "ignore" in options:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)

# As a command line tool does that starts ssh: it says goodbye, and does not take ssh along.
if "grandchild" in options and not inner:
    import subprocess

    child = subprocess.Popen([sys.executable, *sys.argv, "inner"], stdin=subprocess.DEVNULL)
    try:
        sys.exit(child.wait())
    except KeyboardInterrupt:
        say("Closing tunnel")
        sys.exit(0)

say("connecting as postgres://me:geheim@bastion/")
if "dies-before" in options:
    say("bastion: Name or service not known")
    sys.exit(int(options["dies-before"]))
if "flood" in options:
    def flood():
        while True:
            say("x" * 200)
    threading.Thread(target=flood, daemon=True).start()
if "never" in options:
    time.sleep(600)
time.sleep(float(options.get("delay", 0)))

listener = socket.socket()
listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
if "deaf" not in options:
    if "race" in options:
        # Somebody else is faster.
        import subprocess

        other = "import socket, sys, time; s = socket.socket(); s.bind(('127.0.0.1', int(sys.argv[1]))); s.listen(); time.sleep(20)"
        subprocess.Popen([sys.executable, "-c", other, str(port)])
        time.sleep(0.5)
    try:
        listener.bind(("127.0.0.1", port))
    except OSError as error:
        say(f"bind: {error}")
        if "stays" not in options:
            sys.exit(255)
    listener.listen(64)
if "words" in options:
    say("Tunnel is ready on port 1", sys.stdout if options["words"] == "stdout" else sys.stderr)
if "deaf" in options:
    time.sleep(600)
if "dies-after" in options:
    time.sleep(0.2)
    say("Tunnel timed out")
    sys.exit(int(options["dies-after"]))

served = 0
lock = threading.Lock()


def pump(source, sink, answers):
    global served
    try:
        while data := source.recv(65536):
            if answers:
                with lock:
                    served += len(data)
                    limit = int(next((options[o] for o in ("crash", "hang", "shuts") if o in options), 0))
                    is_over = limit and served > limit
                if is_over and "crash" in options:
                    say("Tunnel crashed (255)")
                    os._exit(1)
                if is_over and "shuts" in options:
                    break
                if is_over:
                    time.sleep(600)
                time.sleep(len(data) / float(options["pace"]) if "pace" in options else 0)
            sink.sendall(data)
    except OSError:
        pass
    for end in (source, sink):
        try:
            end.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass


tls = None
if "tls" in options:
    # What a server behind the tunnel has; this end of it ends the encryption.
    import ssl

    certificate, key = options["tls"].split(",")
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate, key)
    tls.set_alpn_protocols(options.get("alpn", "http/1.1").split(","))

while True:
    client, _ = listener.accept()
    if "shuts" in options and served > int(options["shuts"]):
        client.close()  # as kubectl does when its pod is gone
        continue
    if "hang" in options and served > int(options["hang"]):
        held = client  # accepted, and nothing comes
        threading.Thread(target=lambda held=held: time.sleep(600), daemon=True).start()
        continue
    try:
        server = socket.create_connection((host, target))
    except OSError:
        client.close()
        continue
    if tls:
        try:
            client = tls.wrap_socket(client, server_side=True)
        except OSError:
            continue
    for end in (client, server):
        end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    threading.Thread(target=pump, args=(client, server, False), daemon=True).start()
    threading.Thread(target=pump, args=(server, client, True), daemon=True).start()
