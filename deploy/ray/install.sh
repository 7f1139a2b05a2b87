#!/usr/bin/env bash
# Installs the newest wheel in ~/dreamfleet/dist on this node; run again, it upgrades.
# usage: install.sh [PACKAGE ...]     more Python packages, for the autoscaler of a cloud
set -euo pipefail
cd ~/dreamfleet

wheel=$(ls -t "$PWD"/dist/*.whl | head -n 1)
wanted=$(sha256sum "$wheel" requirements.lock)
if [ "$wanted" != "$(cat env/installed 2> /dev/null)" ]; then
  [ -x env/bin/python ] || python3 -m venv env
  env/bin/python -m pip install --quiet torch==2.13.0
  env/bin/python -m pip install --quiet --constraint requirements.lock "$wheel[cluster]" "$@"
  # Two wheels may hold different files under one version number.
  env/bin/python -m pip install --quiet --no-deps --force-reinstall "$wheel"
  echo "$wanted" > env/installed
fi

grep -qsF dreamfleet/deploy/ray/environment.sh ~/.bashrc || echo '. ~/dreamfleet/deploy/ray/environment.sh' >> ~/.bashrc
chmod 700 ~/.ray
chmod 600 ~/.ray/auth_token
echo "$(hostname): $(basename "$wheel")"
