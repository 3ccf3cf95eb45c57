#!/usr/bin/env bash
# Makes the golden archives of a version of the format: `make.sh PROGRAM FOLDER`, for example
# `tests/data/archives/make.sh target/release/moveout tests/data/archives/v3`. Needs influxd 1.6, PostgreSQL and
# MariaDB, as `.ci/setup` installs them, and to be root, so that the servers can be somebody else.
set -euo pipefail
bin=$(realpath "$1") out=$2 here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$out"; out=$(cd "$out" && pwd)
work=$(mktemp -d); chmod 777 "$work"
# In the background it is the server itself, so that its id is the one to end.
server() { exec setpriv --reuid 65534 --regid 65534 --clear-groups env HOME="$work" "$@"; }
as() { setpriv --reuid 65534 --regid 65534 --clear-groups env HOME="$work" "$@"; }
pg=$(ls -d /usr/lib/postgresql/*/bin | head -1)
pids=()
trap 'for p in "${pids[@]}"; do kill "$p" 2>/dev/null || true; done; wait 2>/dev/null; rm -rf "$work"' EXIT
# A range of two days, so that a later run has something to add.
cd "$here"
"$bin" export --source "lp:lines.lp" --name lines --from 2024-01-01 --to 2024-01-03 --archive "$out/line-protocol" -q
# InfluxDB, as of the same points but one that this version does not take.
cat > "$work/influxd.conf" <<C
reporting-disabled = true
bind-address = "127.0.0.1:48088"
[meta]
  dir = "$work/influx/meta"
[data]
  dir = "$work/influx/data"
  wal-dir = "$work/influx/wal"
[http]
  bind-address = "127.0.0.1:48086"
[monitor]
  store-enabled = false
C
mkdir -p "$work/influx"; chmod 777 "$work/influx"
server influxd -config "$work/influxd.conf" >"$work/influxd.log" 2>&1 & pids+=($!)
for _ in $(seq 100); do curl -s -o /dev/null http://127.0.0.1:48086/ping && break; sleep 0.1; done
q() { curl -sS -XPOST http://127.0.0.1:48086/query --data-urlencode "q=$1" >/dev/null; }
q "CREATE DATABASE plant WITH DURATION INF SHARD DURATION 520w NAME autogen"
q "CREATE CONTINUOUS QUERY daily ON plant BEGIN SELECT mean(flow) INTO daily FROM pump GROUP BY time(1d) END"
grep -v '^#\|^CREATE\|10u' lines.lp | curl -sS -XPOST "http://127.0.0.1:48086/write?db=plant" --data-binary @-
"$bin" export --source influxdb+http://127.0.0.1:48086/plant --name plant --archive "$out/influxdb" -q
# PostgreSQL: first as a user who may not read a table, which leaves an archive without a seal.
as "$pg/initdb" -D "$work/pg" -U admin -A trust >/dev/null
server "$pg/postgres" -D "$work/pg" -p 45432 -c listen_addresses=127.0.0.1 -c unix_socket_directories= >"$work/pg.log" 2>&1 & pids+=($!)
for _ in $(seq 100); do "$pg/pg_isready" -q -h 127.0.0.1 -p 45432 && break; sleep 0.1; done
sql() { psql -q -v ON_ERROR_STOP=1 -h 127.0.0.1 -p 45432 -U admin "$@"; }
sql postgres -c 'CREATE DATABASE shop'; sql shop -f postgres.sql
sql shop -c 'CREATE ROLE reader LOGIN; GRANT SELECT ON visits, colours TO reader'
PGUSER= "$bin" export --source postgres://reader@127.0.0.1:45432/shop --name shop --archive "$out/unsealed" -q && exit 9 || [ $? = 1 ]
sql shop -c 'DROP TABLE secrets'
"$bin" export --source postgres://admin@127.0.0.1:45432/shop --name shop --archive "$out/postgresql" -q
# MariaDB.
mkdir "$work/my"; chmod 777 "$work/my"
as mariadb-install-db --no-defaults --datadir="$work/my" --auth-root-authentication-method=normal --skip-test-db >/dev/null 2>&1
server mariadbd --no-defaults --datadir="$work/my" --port=43306 --bind-address=127.0.0.1 --socket="$work/my.sock" >"$work/my.log" 2>&1 & pids+=($!)
for _ in $(seq 100); do mariadb --no-defaults -h 127.0.0.1 -P 43306 -u root -e '' 2>/dev/null && break; sleep 0.1; done
mariadb --no-defaults -h 127.0.0.1 -P 43306 -u root < mysql.sql >/dev/null
MYSQL_PWD= "$bin" export --source mysql://root@127.0.0.1:43306/shop --name shop --archive "$out/mysql" -q
