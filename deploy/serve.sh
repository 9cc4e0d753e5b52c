#!/usr/bin/env bash
# An MLflow server on PostgreSQL with proxied artifacts, on this machine, without Docker:
#
#   deploy/serve.sh FOLDER [PORT]
#
# The first call sets everything up in FOLDER; later calls start what is there. MLflow listens on 127.0.0.1:PORT (default
# 5000) and PostgreSQL on 127.0.0.1:PORT+1, with a database "mlflow" and a database "optuna" for studies. The password of
# the database is in FOLDER/password. Ctrl-C or SIGTERM stops both servers. They also end when this script is killed.
#
# PYTHON: an interpreter with poolbench[postgres] (default: python3). WORKERS: processes of MLflow (default: 2).
set -euo pipefail

refuse() {
    echo "serve.sh: $1" >&2
    exit 2
}

[ $# -ge 1 ] && [ $# -le 2 ] || refuse "usage: deploy/serve.sh FOLDER [PORT]"
port=${2:-5000}
[[ $port =~ ^[0-9]{4,5}$ ]] && [ "$port" -ge 1024 ] && [ "$port" -le 65534 ] ||
    refuse "PORT is a number from 1024 to 65534, got '$port'"
database_port=$((port + 1))
python=${PYTHON:-python3}
user=poolbench

# Debian keeps PostgreSQL's programs out of the PATH. A database needs those of its own version, a new one the latest.
version=$(cat "$1/postgres/PG_VERSION" 2> /dev/null || echo "*")
binaries=$(compgen -G "/usr/lib/postgresql/$version/bin" | sort -V | tail -n 1 || true)
PATH=${binaries:+$binaries:}$PATH
for needed in initdb postgres pg_isready psql; do
    command -v "$needed" > /dev/null || refuse "$needed is not installed (Debian: apt-get install postgresql)"
done
"$python" -c "import mlflow, psycopg" 2> /dev/null ||
    refuse "$python has no mlflow or no psycopg (pip install 'poolbench[postgres]'); PYTHON names another interpreter"
for used in "$port" "$database_port"; do
    ! (: < "/dev/tcp/127.0.0.1/$used") 2> /dev/null || refuse "port $used is in use; give another PORT"
done

mkdir -p "$1" || refuse "'$1' cannot be made"
folder=$(cd "$1" && pwd)
data=$folder/postgres
# PostgreSQL does not run as root: it gets the account that Debian made for it.
as_owner=()
if [ "$(id -u)" = 0 ]; then
    as_owner=(setpriv --reuid postgres --regid postgres --clear-groups --)
    "${as_owner[@]}" test -x "$folder" || refuse "the account postgres cannot enter '$folder'; give another FOLDER"
fi

if [ ! -f "$folder/password" ]; then
    (umask 077 && "$python" -c "import secrets; print(secrets.token_urlsafe(24))" > "$folder/password.new")
    [ "$(id -u)" != 0 ] || chown postgres: "$folder/password.new" # initdb reads it
    mv "$folder/password.new" "$folder/password"
fi
PGPASSWORD=$(cat "$folder/password")
export PGPASSWORD

if [ ! -d "$data" ]; then
    # Set up beside its place, so that an interrupted set-up starts over.
    rm -rf "$data.new"
    mkdir -m 700 "$data.new"
    [ "$(id -u)" != 0 ] || chown postgres: "$data.new"
    "${as_owner[@]}" initdb --pgdata "$data.new" --username "$user" --auth scram-sha-256 --encoding UTF8 --locale C.UTF-8 \
        --pwfile "$folder/password" > "$folder/initdb.log" 2>&1 || { cat "$folder/initdb.log" >&2; exit 1; }
    mv "$data.new" "$data"
fi

database= server=
stop() {
    trap - EXIT INT TERM
    # The group: MLflow's workers outlive it if it was killed.
    [ -z "$server" ] || { kill -TERM -- "-$server" && wait "$server"; } 2> /dev/null || true
    # SIGINT is a fast shutdown, which does not wait for clients.
    [ -z "$database" ] || { kill -INT "$database" && wait "$database"; } 2> /dev/null || true
}
trap stop EXIT
trap 'exit 0' INT TERM

# Returns when the command succeeds; ends the script if the process dies before.
await() { # PROCESS LOG COMMAND...
    local process=$1 log=$2
    shift 2
    until "$@" > /dev/null 2>&1; do
        kill -0 "$process" 2> /dev/null || { tail -n 10 "$log" >&2; exit 1; }
        sleep 0.2
    done
}

# In process groups of their own, so that a Ctrl-C of the terminal reaches this script alone.
set -m
"${as_owner[@]}" setpriv --pdeathsig INT -- \
    postgres -D "$data" -p "$database_port" -c listen_addresses=127.0.0.1 -c unix_socket_directories= \
    -c max_connections=200 > "$folder/postgres.log" 2>&1 &
database=$!
await "$database" "$folder/postgres.log" pg_isready -U "$user" -h 127.0.0.1 -p "$database_port"
for name in mlflow optuna; do
    psql -q -v ON_ERROR_STOP=1 -h 127.0.0.1 -p "$database_port" -U "$user" -d postgres <<< \
        "select 'create database $name' where not exists (select from pg_database where datname = '$name') \gexec"
done

# The password stays out of the list of processes: MLflow reads the address from its environment.
export MLFLOW_BACKEND_STORE_URI="postgresql+psycopg://$user:$PGPASSWORD@127.0.0.1:$database_port/mlflow"
export MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false # saves 2 GB
export MLFLOW_DISABLE_TELEMETRY=true
setpriv --pdeathsig TERM -- "$python" -m mlflow server --host 127.0.0.1 --port "$port" --workers "${WORKERS:-2}" \
    --serve-artifacts --artifacts-destination "$folder/artifacts" > "$folder/mlflow.log" 2>&1 &
server=$!
await "$server" "$folder/mlflow.log" \
    "$python" -c "import urllib.request as u; u.urlopen('http://127.0.0.1:$port/health', timeout=5)"
echo "MLflow: http://127.0.0.1:$port"
echo "studies: postgresql+psycopg://$user@127.0.0.1:$database_port/optuna (PGPASSWORD=\$(cat $folder/password))"
wait -n "$server" "$database" || true
echo "serve.sh: a server ended; see $folder/mlflow.log and $folder/postgres.log" >&2
exit 1
