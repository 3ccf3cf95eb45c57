# Compares every value of an archive with the server's own text of it, for all tables of one database: what
# stands in Parquet is written as PostgreSQL would write it, by code that knows nothing of the program.
# Arguments: archive, database, psql and its arguments. Prints what differs; ends with 1 then.
import json
import struct
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq


def civil(days):
    """Year, month, day of a count of days since 1970; years before 1 are 0 and less."""
    z = days + 719468
    era = z // 146097
    doe = z - era * 146097
    yoe = (doe - doe // 1460 + doe // 36524 - doe // 146096) // 365
    doy = doe - (365 * yoe + yoe // 4 - yoe // 100)
    mp = (5 * doy + 2) // 153
    month = mp + 3 if mp < 10 else mp - 9
    return yoe + era * 400 + (month <= 2), month, doy - (153 * mp + 2) // 5 + 1


def date(days):
    year, month, day = civil(days)
    return f"{year if year > 0 else 1 - year:04}-{month:02}-{day:02}", "" if year > 0 else " BC"


def clock(micros):
    seconds, fraction = divmod(micros, 1_000_000)
    text = f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}"
    return text + (f".{fraction:06}".rstrip("0") if fraction else "")


def texts(array):
    """The values of an array as PostgreSQL writes them; null is None."""
    if isinstance(array, pa.ExtensionArray):
        array = array.storage
    kind = array.type
    if pa.types.is_timestamp(kind):
        def write(micros):
            day, era = date(micros // 86_400_000_000)
            zone = "+00" if kind.tz else ""
            return f"{day} {clock(micros % 86_400_000_000)}{zone}{era}"
        return [None if v is None else write(v) for v in array.cast(pa.int64()).to_pylist()]
    if pa.types.is_date32(kind):
        return [None if v is None else "".join(date(v)) for v in array.cast(pa.int32()).to_pylist()]
    if pa.types.is_time64(kind):
        return [None if v is None else clock(v) for v in array.cast(pa.int64()).to_pylist()]
    if pa.types.is_list(kind):
        flat = texts(array.values)
        ends = array.offsets.to_pylist()
        return [flat[ends[i]:ends[i + 1]] if array[i].is_valid else None for i in range(len(array))]
    if pa.types.is_struct(kind):
        return [None if v is None else " ".join(str(part) for part in v.values()) for v in array.to_pylist()]
    if pa.types.is_decimal(kind):
        return [None if v is None else format(v, "f") for v in array.to_pylist()]
    if pa.types.is_boolean(kind):
        return [None if v is None else str(v).lower() for v in array.to_pylist()]
    if pa.types.is_fixed_size_binary(kind):
        split = lambda h: "-".join((h[:8], h[8:12], h[12:16], h[16:20], h[20:]))
        return [None if v is None else split(v.hex()) for v in array.to_pylist()]
    if pa.types.is_binary(kind):
        return [None if v is None else "\\x" + v.hex() for v in array.to_pylist()]
    if pa.types.is_floating(kind):
        code = "<f" if pa.types.is_float32(kind) else "<d"
        return [None if v is None else struct.pack(code, v).hex() for v in array.to_pylist()]
    return [None if v is None else str(v) for v in array.to_pylist()]


def asked(column, field):
    """What to ask the server for, so that it writes the same."""
    quoted = '"' + column.replace('"', '""') + '"'
    if pa.types.is_struct(field.type):
        part = lambda name, of: f"extract({name} from {of})"
        micros = " + ".join(f"{part(name, quoted)} * {weight}" for name, weight in
                            (("hour", 3_600_000_000), ("minute", 60_000_000), ("microseconds", 1)))
        months = f"{part('year', quoted)} * 12 + {part('month', quoted)}"
        return f"({months})::bigint || ' ' || {part('day', quoted)}::bigint || ' ' || ({micros})::bigint"
    if pa.types.is_list(field.type):
        if pa.types.is_struct(field.type.value_type):
            inner = asked("e", pa.field("e", field.type.value_type))
            elements = f"array_agg(({inner}) ORDER BY n)"
            return (f"(SELECT CASE WHEN {quoted} IS NOT NULL THEN array_to_json(coalesce({elements}, '{{}}')) END "
                    f"FROM unnest({quoted}) WITH ORDINALITY u(e, n))")
        return f"array_to_json({quoted}::text[])"
    return f"{quoted}::text"


def server_value(value, kind):
    """Floats are compared bit by bit, whatever their text."""
    if isinstance(value, list):
        return tuple(server_value(element, kind.value_type) for element in value)
    if value is None or not pa.types.is_floating(kind):
        return value
    code = "<f" if pa.types.is_float32(kind) else "<d"
    return struct.pack(code, float(value)).hex()


def main(archive, database, *psql):
    archive, faults, compared = Path(archive), 0, 0
    for table in json.loads((archive / "catalog/tables.json").read_text()):
        if table["database"] != database:
            continue
        quoted = ".".join('"' + table[part].replace('"', '""') + '"' for part in ("schema", "table"))
        files = [pq.read_table(file) for file in sorted((archive / table["path"]).glob("*.parquet"))]
        if not files:
            rows = subprocess.run([*psql, "-c", f"SELECT count(*) FROM ONLY {quoted}"], capture_output=True,
                                  text=True, check=True).stdout.strip()
            if rows != "0":
                faults += 1
                print(f"{quoted}: no file, and {rows} rows")
            continue
        schema = files[0].schema
        if any(file.schema.remove_metadata() != schema.remove_metadata() for file in files):
            faults += 1
            print(f"{quoted}: files of different schemas")
        keys = [field.metadata[b"moveout.key"].decode() for field in schema]
        columns = [asked(key, field) for key, field in zip(keys, schema)]
        sql = f"SELECT json_build_array({', '.join(columns)}) FROM ONLY {quoted}"
        if len(columns) > 100:
            parts = [columns[i:i + 100] for i in range(0, len(columns), 100)]
            sql = "SELECT json_build_array(" + ", ".join(
                f"json_build_array({', '.join(part)})" for part in parts) + f") FROM ONLY {quoted}"
        answer = subprocess.run([*psql, "-c", sql], capture_output=True, check=True).stdout.decode()
        expected = []
        for line in answer.split("\n"):
            if line.strip():
                row = json.loads(line)
                row = [v for part in row for v in part] if len(columns) > 100 else row
                expected.append(tuple(server_value(v, f.type) for v, f in zip(row, schema)))
        found = []
        for file in files:
            of_file = [texts(column.combine_chunks()) if column.num_chunks != 1 else texts(column.chunk(0))
                       for column in file.columns]
            freeze = lambda value: tuple(value) if isinstance(value, list) else value
            found += [tuple(freeze(value) for value in row) for row in zip(*of_file)]
        compared += len(found)
        missing, surplus = Counter(expected) - Counter(found), Counter(found) - Counter(expected)
        if missing or surplus:
            faults += 1
            print(f"{quoted}: {sum(missing.values())} rows differ of {len(expected)}, {len(found)} found")
            for one, other in list(zip(missing, surplus))[:3]:
                for key, a, b in zip(keys, one, other):
                    if a != b:
                        print(f"  {key}: server {str(a)[:200]!r}, archive {str(b)[:200]!r}")
    print(f"{compared} rows compared")
    return 1 if faults else 0


sys.exit(main(*sys.argv[1:]))
