"""`ray submit CLUSTER.yaml deploy/ray/train.py -- --task …`: `dreamfleet train` on the head of the cluster."""

import sys

from cluster.main import main

if __name__ == "__main__":
    raise SystemExit(main(["train", *sys.argv[1:]]))
