#!/usr/bin/env bash
# Starts two Redis servers on this node, each unless it answers already: one for the replay, and one in which Ray's
# head keeps its state. Their secrets are made here at the first start and never leave the node.
# usage: on_head.sh [ADDRESS ...]     where the replay's server listens besides loopback
set -euo pipefail
umask 077
here=$(cd "$(dirname "$0")" && pwd)
home=${DREAMFLEET_REDIS_HOME:-$HOME/dreamfleet/redis}
replay_port=${DREAMFLEET_REPLAY_PORT:-6380}
ray_port=${DREAMFLEET_RAY_REDIS_PORT:-6381}
memory=${DREAMFLEET_REPLAY_MEMORY:-8gb}
mkdir -p "$home/replay" "$home/ray"

if [ ! -s "$home/password" ]; then
  openssl rand -hex 32 > "$home/password"
  digest=$(tr -d '\n' < "$home/password" | sha256sum | cut -d ' ' -f 1)
  sed "s/ off #[0-9a-f]*/ on #$digest/" "$here/users.acl" > "$home/users.acl"
fi
# Ray puts a Redis password on the command line of its control store, for everybody to read. It takes certificates
# from files, so its server asks for one instead: this key is the server's, and who has it may connect.
if [ ! -s "$home/ray/key.pem" ]; then
  openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 3650 -subj /CN=dreamfleet \
    -addext subjectAltName=IP:127.0.0.1 -keyout "$home/ray/key.pem" -out "$home/ray/cert.pem" 2> /dev/null
fi

start() { # NAME PORT FILE SETTING ...
  if (exec 3<> "/dev/tcp/127.0.0.1/$2") 2> /dev/null; then return; fi
  redis-server "$here/$3" --dir "$home/$1" --pidfile "$home/$1/pid" --logfile "$home/$1/log" --daemonize yes "${@:4}"
}
start replay "$replay_port" redis.conf --port "$replay_port" --aclfile "$home/users.acl" --maxmemory "$memory" --bind 127.0.0.1 "$@"
start ray "$ray_port" ray.conf --tls-port "$ray_port" --tls-cert-file "$home/ray/cert.pem" --tls-key-file "$home/ray/key.pem" \
  --tls-ca-cert-file "$home/ray/cert.pem"

echo "redis://dreamfleet@${1:-127.0.0.1}:$replay_port" > "$home/url"
cat > "$home/ray.env" << END
export RAY_REDIS_ADDRESS=rediss://127.0.0.1:$ray_port
export RAY_REDIS_CA_CERT=$home/ray/cert.pem RAY_REDIS_CLIENT_CERT=$home/ray/cert.pem RAY_REDIS_CLIENT_KEY=$home/ray/key.pem
# Ray of another version must not read what this one wrote.
export RAY_external_storage_namespace=dreamfleet_\$(python -c 'import ray; print(ray.__version__.replace(".", "_"))')
END
