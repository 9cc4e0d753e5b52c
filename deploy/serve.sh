#!/usr/bin/env bash
# An MLflow server on PostgreSQL with proxied artifacts, on this machine, without Docker:
#
#   deploy/serve.sh FOLDER [PORT]
#
# The first call sets everything up in FOLDER; later calls start what is there. MLflow listens on 127.0.0.1:PORT (default
# 5000), PostgreSQL on 127.0.0.1:PORT+1, with a database for MLflow and one for the studies of `poolbench tune`. The password
# of the database is in FOLDER/password. Ctrl-C or SIGTERM stops both servers.
#
# PYTHON: an interpreter with poolbench[postgres] (default: python3). WORKERS: processes of MLflow (default: 4).
set -euo pipefail

[ $# -ge 1 ] && [ $# -le 2 ] || { echo "usage: deploy/serve.sh FOLDER [PORT]" >&2; exit 2; }
mkdir -p "$1"
folder=$(cd "$1" && pwd)
port=${2:-5000}
[[ $port =~ ^[0-9]+$ ]] && [ "$port" -ge 1024 ] && [ "$port" -le 65534 ] ||
    { echo "serve.sh: PORT is a number from 1024 to 65534, got '$port'" >&2; exit 2; }
database_port=$((port + 1))
python=${PYTHON:-python3}
user=poolbench

# Debian keeps initdb and postgres out of the PATH.
binaries=$(ls -d /usr/lib/postgresql/*/bin 2> /dev/null | sort -V | tail -n 1 || true)
PATH=${binaries:+$binaries:}$PATH
for needed in initdb postgres pg_isready psql createdb; do
    command -v "$needed" > /dev/null ||
        { echo "serve.sh: $needed is not installed (Debian: apt-get install postgresql)" >&2; exit 2; }
done
"$python" -c "import mlflow, psycopg" 2> /dev/null ||
    { echo "serve.sh: $python has no mlflow or psycopg (pip install 'poolbench[postgres]'); PYTHON names another" >&2; exit 2; }

# PostgreSQL refuses to run as root: it gets the account that Debian made for it.
data=$folder/postgres
owner=()
[ "$(id -u)" != 0 ] || owner=(setpriv --reuid postgres --regid postgres --clear-groups --)

"${owner[@]}" test -x "$folder" ||
    { echo "serve.sh: the account postgres cannot enter '$folder'; choose a folder that others may enter" >&2; exit 2; }

if [ ! -f "$folder/password" ]; then
    (umask 077 && "$python" -c "import secrets; print(secrets.token_urlsafe(24))" > "$folder/password.new")
    mv "$folder/password.new" "$folder/password"
fi
PGPASSWORD=$(cat "$folder/password")
export PGPASSWORD

if [ ! -f "$data/ready" ]; then
    rm -rf "$data"
    mkdir "$data"
    [ "$(id -u)" != 0 ] || chown postgres "$data"
    chmod 700 "$data"
    # A copy that the owner can read. initdb wants an empty folder, so it lies beside.
    (umask 077 && cp "$folder/password" "$folder/password.init")
    [ "$(id -u)" != 0 ] || chown postgres "$folder/password.init"
    "${owner[@]}" initdb --pgdata "$data" --username "$user" --auth scram-sha-256 --encoding UTF8 --no-instructions \
        --pwfile "$folder/password.init" > "$folder/initdb.log" 2>&1 ||
        { cat "$folder/initdb.log" >&2; exit 1; }
    rm "$folder/password.init"
    "${owner[@]}" touch "$data/ready"
fi

database= server=
stop() {
    trap - EXIT INT TERM
    [ -z "$server" ] || { kill -TERM -- "-$server" 2> /dev/null || true; wait "$server" 2> /dev/null || true; }
    # SIGINT: a fast shutdown, which does not wait for clients.
    [ -z "$database" ] || { kill -INT "$database" 2> /dev/null || true; wait "$database" 2> /dev/null || true; }
}
trap stop EXIT
trap 'exit 0' INT TERM

# In process groups of their own, so that a Ctrl-C of the terminal reaches this script alone.
set -m
"${owner[@]}" postgres -D "$data" -p "$database_port" -c listen_addresses=127.0.0.1 -c unix_socket_directories= \
    -c max_connections=200 > "$folder/postgres.log" 2>&1 &
database=$!
for _ in $(seq 600); do
    pg_isready -q -h 127.0.0.1 -p "$database_port" && break
    kill -0 "$database" 2> /dev/null || { tail -n 5 "$folder/postgres.log" >&2; exit 1; }
    sleep 0.1
done
for name in mlflow optuna; do
    [ -n "$(psql -h 127.0.0.1 -p "$database_port" -U "$user" -d postgres -tAc "select 1 from pg_database where datname = '$name'")" ] ||
        createdb -h 127.0.0.1 -p "$database_port" -U "$user" "$name"
done

# The password stays out of the list of processes: MLflow reads the address from its environment.
export MLFLOW_BACKEND_STORE_URI="postgresql+psycopg://$user:$PGPASSWORD@127.0.0.1:$database_port/mlflow"
export MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false # saves 2 GB
"$python" -m mlflow server --host 127.0.0.1 --port "$port" --workers "${WORKERS:-4}" \
    --artifacts-destination "$folder/artifacts" > "$folder/mlflow.log" 2>&1 &
server=$!
for _ in $(seq 1200); do
    "$python" -c "import sys, urllib.request as u; u.urlopen('http://127.0.0.1:$port/health', timeout=2)" 2> /dev/null && break
    kill -0 "$server" 2> /dev/null || { tail -n 20 "$folder/mlflow.log" >&2; exit 1; }
    sleep 0.2
done
echo "MLflow: http://127.0.0.1:$port"
echo "studies: postgresql+psycopg://$user@127.0.0.1:$database_port/optuna (PGPASSWORD=\$(cat $folder/password))"
wait -n "$server" "$database"
echo "serve.sh: a server ended; see $folder/mlflow.log and $folder/postgres.log" >&2
exit 1
