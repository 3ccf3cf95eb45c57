"""What the benches have in common that run exporters in turn against a server of their own: processes and
what they cost, a virtual environment for the peers, rounds, tables."""
import os, signal, statistics, subprocess, sys, threading, time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
COLUMNS = [("wall s", "wall_s", ".2f"), ("(best)", "wall_min_s", ".2f"), ("rows/s", "rows_per_s", ",.0f"),
           ("client CPU s/M", "client_cpu_s_per_million", ".2f"),
           ("server CPU s/M", "server_cpu_s_per_million", ".2f"), ("RSS MiB", "peak_rss_mib", ".0f")]


class Failure(Exception):
    """Ends one contestant, or everything, with a message for people."""


def say(text):
    print(text, file=sys.stderr, flush=True)


def tail(path, lines=15):
    text = Path(path).read_text(errors="replace").splitlines()
    return "\n".join("    " + line for line in text[-lines:]) or "    (nothing)"


def before(moveout, program, concurrencies, chosen, labels, ratios):
    """An older moveout as further contestants, each compared with the one of now."""
    found = {}
    for number in concurrencies:
        if f"moveout-c{number}" in chosen:
            labels[f"before-c{number}"] = f"before -c {number}"
            ratios += [(f"moveout-c{number}", f"before-c{number}", what) for what in ("wall", "client_cpu")]
            found[f"before-c{number}"] = lambda number=number: moveout(number, program=program)
    return found


def expect(found, wanted):
    if found != wanted:
        raise Failure(f"{found} rows instead of {wanted}")


def clean_environment():
    """Without what would lead a program to a proxy, or to another server."""
    return {k: v for k, v in os.environ.items()
            if not k.upper().endswith("_PROXY") and not k.startswith(("INFLUX", "AWS_", "PG", "MYSQL"))}


def cpu_of_tree(pid):
    """Seconds of CPU that a process has used so far, with its children, living and gone."""
    found = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue  # gone meanwhile
        found[int(stat.parent.name)] = int(fields[1]), sum(map(int, fields[11:15]))
    ticks, family = 0, [pid]
    for member in family:
        ticks += found[member][1] if member in found else 0
        family += [child for child, (parent, _) in found.items() if parent == member]
    return ticks / os.sysconf("SC_CLK_TCK")


def measure(server, folder, timeout, *commands, env=None, keep=True):
    """Runs all commands at once; returns the figures and what each wrote to standard output (nothing
    unless `keep`). The server has `cpu()` and `log`."""
    processes, late, cpu, rss = [], [], 0, 0
    files = [(folder / f"out{n}" if keep else Path(os.devnull), folder / f"err{n}") for n in range(len(commands))]

    def stop(why):
        for p in processes:
            if p.returncode is None:
                late.append(why)
                p.send_signal(signal.SIGKILL)
    timer = threading.Timer(timeout, stop, [f"stopped after {timeout} s"])
    server_cpu, started = server.cpu(), time.monotonic()
    try:
        for command, (out, err) in zip(commands, files):
            with out.open("wb") as o, err.open("wb") as e:
                processes.append(subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=o, stderr=e,
                                                  cwd=folder, env=clean_environment() | (env or {})))
        timer.start()
        for p in processes:
            _, status, usage = os.wait4(p.pid, 0)
            p.returncode = os.waitstatus_to_exitcode(status)
            cpu += usage.ru_utime + usage.ru_stime
            rss += usage.ru_maxrss / 1024
        wall = time.monotonic() - started
    finally:  # also when interrupted: nothing is left running
        timer.cancel()
        stop("interrupted")
    for p, command, (_, err) in zip(processes, commands, files):
        if p.returncode:
            why = late[0] if late else f"exit status {p.returncode}"
            raise Failure(f"{' '.join(map(str, command))[:300]}\n  {why}; its standard error:\n{tail(err)}\n"
                          f"  the server's log:\n{tail(server.log, 5)}")
    run = {"bytes": None, "wall": wall, "client_cpu": cpu, "server_cpu": server.cpu() - server_cpu, "rss_mib": rss}
    return run, [out.read_text(errors="replace") if keep else "" for out, _ in files]


def stop_process(process, how=signal.SIGTERM):
    process.send_signal(how)
    try:
        process.wait(30)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def install(name, packages):
    """A virtual environment below target/ with these packages; returns where it is."""
    venv = ROOT / "target" / name
    marker = venv / "installed"
    if not marker.exists() or marker.read_text() != repr(packages):
        say(f"installing {' '.join(packages)} into {venv}")
        subprocess.run([sys.executable, "-m", "venv", "--clear", venv], check=True)
        subprocess.run([venv / "bin" / "python", "-m", "pip", "install", "-q", *packages], check=True)
        marker.write_text(repr(packages))
    return venv


def in_rounds(contestants, labels, number, warm_up):
    """Runs them in turn, after `warm_up`, so many rounds; returns the runs of those that never failed, and
    the failures."""
    runs, failed = {name: [] for name in contestants}, {}
    for i in range(1, number + 1):
        warm_up()
        for name in [n for n in contestants if n not in failed]:
            time.sleep(0.3)
            try:
                runs[name].append(contestants[name]())
                say(f"round {i}: {labels[name]} {runs[name][-1]['wall']:.2f} s")
            except Failure as e:
                failed[name] = str(e)
                say(f"round {i}: {labels[name]} FAILED: {e}")
    return {n: r for n, r in runs.items() if n not in failed}, failed


def line(label, runs, rows, scale=1):
    """One line of the table: `rows` is what a run read, and `scale` of them the wall time shall stand for."""
    def median(key, by=1.0):
        return None if runs[0][key] is None else statistics.median(r[key] for r in runs) / by
    return {"name": label, "wall_s": median("wall") * scale, "wall_min_s": min(r["wall"] for r in runs) * scale,
            "rows_per_s": rows / median("wall"), "client_cpu_s_per_million": median("client_cpu", rows / 1e6),
            "server_cpu_s_per_million": median("server_cpu", rows / 1e6),
            "peak_rss_mib": max(r["rss_mib"] for r in runs), "bytes": median("bytes"),
            "bytes_per_row": median("bytes", rows), "runs": runs}


def show(lines, columns):
    grid = [["", *(c[0] for c in columns)]]
    grid += [[l["name"], *("-" if l[k] is None else format(l[k], f) for _, k, f in columns)] for l in lines]
    widths = [max(map(len, column)) for column in zip(*grid)]
    for row in grid:
        print(row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:])), sep="  ")


def show_ratios(ratios, runs, labels, failed):
    """Prints medians of ratios that are paired by round, and what failed; returns them."""
    found = {}
    for a, b, key in ratios:
        if pairs := [(x[key], y[key]) for x, y in zip(runs.get(a, []), runs.get(b, [])) if y[key]]:
            found[f"{labels[a]} / {labels[b]}, {key.replace('_', ' ')}"] = statistics.median(x / y for x, y in pairs)
    if found:
        print("\nratios, paired by round, median:", *(f"  {n}: {v:.3f}" for n, v in found.items()), sep="\n")
    for name in failed:
        print(f"FAILED, see above, and left out: {labels[name]}")
    return found
