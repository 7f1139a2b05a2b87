#!/usr/bin/env bash
# Makes what rayjob.yaml and redis.yaml need in the namespace that kubectl looks at: Redis' settings and secrets. Secrets
# go from files to kubectl, never over a command line; run again, it replaces them all.
set -euo pipefail
umask 077
redis=$(cd "$(dirname "$0")/../redis" && pwd)
folder=$(mktemp -d)
trap 'rm -r "$folder"' EXIT

openssl rand -hex 32 > "$folder/password"
digest=$(tr -d '\n' < "$folder/password" | sha256sum | cut -d ' ' -f 1)
sed "s/ off #[0-9a-f]*/ on #$digest/" "$redis/users.acl" > "$folder/users.acl"
# Ray's head shows the server this certificate and is let in: a password would be in its pod's process list.
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 3650 -subj /CN=dreamfleet \
  -addext subjectAltName=DNS:dreamfleet-redis -keyout "$folder/tls.key" -out "$folder/tls.crt" 2> /dev/null

apply() { kubectl create "$@" --dry-run=client --output yaml | kubectl apply --filename -; }
apply configmap dreamfleet-redis --from-file="$redis/redis.conf" --from-file="$redis/ray.conf"
apply secret generic dreamfleet-redis --from-file="$folder/password" --from-file="$folder/users.acl"
apply secret tls dreamfleet-ray-redis --cert="$folder/tls.crt" --key="$folder/tls.key"
