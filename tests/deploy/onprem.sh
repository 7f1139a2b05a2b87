#!/usr/bin/env bash
# Really runs deploy/ray/onprem.yaml, as root, on hosts that ssh_hosts.sh makes here: `ray up`, a run over three nodes
# with its replay in Redis, `ray job submit`, `ray submit`, strangers without the token, `ray down`.
# usage: tests/deploy/onprem.sh FOLDER     an empty folder for the hosts' homes
# PYTHON has the dependencies and ray[default]; INSTALLED=1 puts the wheel on the hosts beforehand, for a slow machine;
# DASHBOARD=false starts Ray without its dashboard, and leaves `ray job submit` out.
set -euo pipefail
cd "$(dirname "$0")/../.."
folder=$(realpath -m "$1")
python=${PYTHON:-.venv/bin/python}
hosts=$PWD/tests/deploy/ssh_hosts.sh
user=10.213.7.1 head=10.213.7.10 a=10.213.7.11 b=10.213.7.12
trap '"$hosts" down "$folder"' EXIT

step() { printf '\n--- %s\n' "$*"; }
on() { "$hosts" in "$folder" "$@"; }

mkdir -p "$folder/user/checkout"
step "the wheel, and each host's environment: the dependencies are this machine's, Dreamfleet itself is not there"
"$python" -m pip wheel . --no-deps --quiet --wheel-dir "$folder/user/checkout/dist"
cp -r deploy requirements.lock "$folder/user/checkout/"
packages=$("$python" -c 'import os, sys; print(*(os.path.realpath(p) for p in sys.path if p.endswith("site-packages")), sep="\n")')
env=$folder/user/dreamfleet/env
"$python" -m venv "$env"
rm -r "$env"/lib/python3*/site-packages/setuptools*   # an old one would hide that of the dependencies
printf '%s\n' "$packages" > "$(echo "$env"/lib/python3*/site-packages)/here.pth"
program() { printf '%s\n' "#!/home/node/dreamfleet/env/bin/python" "from $2 import main" "raise SystemExit(main())" > "$env/bin/$1"; chmod +x "$env/bin/$1"; }
program ray ray.scripts.scripts
if [ -n "${INSTALLED:-}" ]; then   # spares each host what install.sh does
  "$env/bin/python" -m pip install --quiet --no-deps --no-index "$folder"/user/checkout/dist/*.whl
  program dreamfleet cluster.main
  (cd "$folder/user/checkout" && sha256sum dist/*.whl requirements.lock) | sed 's# dist/# /home/node/dreamfleet/dist/#' > "$env/installed"
fi
for name in head a b; do mkdir -p "$folder/$name" && cp -r "$folder/user/dreamfleet" "$folder/$name/"; done
"$hosts" up "$folder" user=$user head=$head a=$a b=$b
cp "$folder/key" "$folder/user/.ssh/id_ed25519"
cluster=checkout/deploy/ray/onprem.yaml
sed -i "s/head_ip: [0-9.]*/head_ip: $head/; s/worker_ips: \[.*\]/worker_ips: [$a, $b]/; s/ssh_user: ubuntu/ssh_user: root/" \
  "$folder/user/$cluster"

sed -i "s/--dashboard-host=127.0.0.1/& --include-dashboard=${DASHBOARD:-true}/" "$folder/user/$cluster"

step "ray up"
on user ray get-auth-token --generate > /dev/null
token=$(cat "$folder/user/.ray/auth_token")
on user bash -c 'cd checkout && ray up --yes --no-config-cache deploy/ray/onprem.yaml' > "$folder/up.log" 2>&1 || { tail -n 40 "$folder/up.log"; exit 1; }

on head env RAY_AUTH_MODE=token python - << 'END'
import time, ray
ray.init(address="auto", logging_level="ERROR")
while len([node for node in ray.nodes() if node["Alive"]]) < 3:
    time.sleep(1)
for node in ray.nodes():
    labels = sorted(name for name in node["Resources"] if name.startswith("dreamfleet"))
    print(node["NodeManagerHostname"], node["NodeManagerAddress"], *labels)
END

train="--ray-address auto --ray-placement labels --preset smoke --device cpu --replay-store redis \
  --redis-url redis://dreamfleet@127.0.0.1:6380 --redis-password-file ~/dreamfleet/redis/password"
step "ray exec … dreamfleet train"
on user ray exec $cluster "dreamfleet train $train --run-dir ~/runs/exec"
if [ "${DASHBOARD:-true}" = true ]; then
  step "ray job submit, on the head"
  on user ray exec $cluster "ray job submit -- bash -c 'dreamfleet train $train --run-dir ~/runs/job'"
fi
step "ray submit"
on user ray submit $cluster checkout/deploy/ray/train.py -- $train --run-dir runs/submit

step "nodes with other files"
for name in a b; do on "$name" bash -c 'echo "# other" >> "$(cd / && python -c "import common.code; print(common.code.__file__)")"'; done
on user ray exec $cluster "dreamfleet train $train --run-dir ~/runs/other" 2>&1 | grep '^dreamfleet:' || true

step "strangers: no token, another token"
on b bash -c "mv .ray/auth_token .ray/away; RAY_AUTH_MODE=disabled timeout 60 python -c 'import ray; ray.init(address=\"$head:6379\")'" 2>&1 | tail -n 1 || true
on b bash -c "RAY_AUTH_MODE=token RAY_AUTH_TOKEN=$(printf 'f%.0s' {1..64}) timeout 60 python -c 'import ray; ray.init(address=\"$head:6379\")'" 2>&1 | tail -n 1 || true
on b bash -c 'mv .ray/away .ray/auth_token'

step "secrets: places that hold the token or Redis' password, other than their own files"
for secret in "$token" "$(cat "$folder/head/dreamfleet/redis/password")"; do
  for name in user head a b; do
    on "$name" env SECRET="$secret" bash -c \
      'grep -rlF "$SECRET" ~/runs /tmp/ray 2> /dev/null; grep -lF "$SECRET" /proc/[0-9]*/cmdline 2> /dev/null' | sed "s/^/$name: /" || true
  done
done

step "ray down"
on user ray down --yes $cluster 2>&1 | tail -n 12
# `ray down` ends what is on the head; the others' Ray ends by itself when its head has been away for a while.
for name in head a b; do
  for _ in $(seq 700); do on "$name" pgrep -c raylet > /dev/null || break; sleep 1; done
  echo "$name: $(on "$name" pgrep -c raylet || true) raylets"
done
