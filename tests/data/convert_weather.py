"""Makes weather.lp from the CSV files that the Python package vega-datasets 0.9.0 carries.

    pip install vega-datasets==0.9.0
    python convert_weather.py > weather.lp

The output is the same, byte for byte, on every run. README.md says where the data are from.
"""

import csv
import sys
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from importlib.util import find_spec
from pathlib import Path

# Only its files are wanted: importing it would need pandas.
DATA = Path(find_spec("vega_datasets").submodule_search_locations[0]) / "_data"
# The stations are on local standard time, also in summer.
STANDARD_TIME = timezone(timedelta(hours=-8))
# As `influx_inspect export` begins its files.
HEADER = """\
# DDL
CREATE DATABASE weather WITH NAME autogen
# DML
# CONTEXT-DATABASE:weather
# CONTEXT-RETENTION-POLICY:autogen
"""
HOURLY_UNTIL = datetime(2010, 4, 1, tzinfo=STANDARD_TIME)


def rows(name):
    with open(DATA / name, newline="", encoding="utf-8") as file:
        yield from csv.DictReader(file)


def local(text, form):
    return datetime.strptime(text, form).replace(tzinfo=STANDARD_TIME)


def nanoseconds(time):
    return int(time.timestamp()) * 1_000_000_000


def daily():
    for row in rows("seattle-weather.csv"):
        rain = Decimal(row["precipitation"])
        fields = [
            f"freezing={'true' if Decimal(row['temp_min']) <= 0 else 'false'}",
            f"precipitation_mm={row['precipitation']}",
            f"precipitation_tenths={int(rain * 10)}i",
            f"temp_max_c={row['temp_max']}",
            f"temp_min_c={row['temp_min']}",
            f'weather="{row["weather"]}"',
            f"wind_m_s={row['wind']}",
        ]
        time = nanoseconds(local(row["date"], "%Y/%m/%d"))
        yield f"daily_weather,location=Seattle {','.join(fields)} {time}"


def hourly(name, form, tags):
    for row in rows(name):
        time = local(row["date"], form)
        if time < HOURLY_UNTIL:
            yield f"hourly_normals,{tags} temp_f={row['temp']} {nanoseconds(time)}"


def main():
    out = sys.stdout
    out.write(HEADER)
    series = [
        daily(),
        hourly("sf-temps.csv", "%Y/%m/%d %H:%M:%S", r"location=San\ Francisco,station=USW00023234"),
        hourly("seattle-temps.csv", "%Y/%m/%d %H:%M", "location=Seattle,station=USW00024233"),
    ]
    for lines in series:
        out.writelines(line + "\n" for line in lines)


if __name__ == "__main__":
    main()
