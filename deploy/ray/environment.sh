# What every shell on a cluster's nodes begins with: install.sh has ~/.bashrc read it.
export PATH="$HOME/dreamfleet/env/bin:$PATH"
# Without this word Ray 2.60 starts a cluster that asks nobody for a token when the token's file is missing.
export RAY_AUTH_MODE=token
# How long nodes and runs wait for a head whose control store is away, before they give up and end; Ray's own is 60.
export RAY_gcs_rpc_server_reconnect_timeout_s=600
