#!/usr/bin/env bash
# Machines to try `ray up` on: network namespaces of this one, each with its own ssh server, processes, hostname, /tmp,
# /dev/shm and home folder, on a network that leads nowhere. The rest of the file system they see read-only.
# usage (as root): ssh_hosts.sh up FOLDER NAME=ADDRESS ...     starts them; home folders and ssh key go into FOLDER
#                  ssh_hosts.sh in FOLDER NAME COMMAND ...     runs a command on one of them
#                  ssh_hosts.sh down FOLDER                    ends them and all that runs on them
set -euo pipefail
action=$1 folder=$(realpath -m "$2")
shift 2
home=/home/node

network() { # the wire: a bridge in a namespace of its own
  ip netns add dfl-wire
  ip -n dfl-wire link add wire type bridge
  ip -n dfl-wire link set wire up
}

plug() { # NAME ADDRESS
  ip netns add "dfl-$1"
  ip -n "dfl-$1" link add eth0 type veth peer name "port-$1" netns dfl-wire
  ip -n dfl-wire link set "port-$1" master wire up
  ip -n "dfl-$1" address add "$2/24" dev eth0
  ip -n "dfl-$1" link set lo up
  ip -n "dfl-$1" link set eth0 up
  ip -n "dfl-$1" route add default dev eth0   # Ray learns its address from where a packet to the world would leave
}

case $action in
  up)
    mkdir -p "$folder"
    [ -e "$folder/key" ] || ssh-keygen -q -t ed25519 -N '' -f "$folder/key"
    sed "s#^root:\(.*\):/root:#root:\1:$home:#" /etc/passwd > "$folder/passwd"
    network
    for host in "$@"; do
      name=${host%%=*}
      plug "$name" "${host#*=}"
      mkdir -p "$folder/$name/.ssh"
      cp "$folder/key.pub" "$folder/$name/.ssh/authorized_keys"
      setsid ip netns exec "dfl-$name" unshare --mount --uts --pid --fork --kill-child --mount-proc \
        "$0" be "$folder" "$name" > "$folder/$name.log" 2>&1 < /dev/null &
      echo $! > "$folder/$name.pid"
    done
    for host in "$@"; do until grep -q listening "$folder/${host%%=*}.log"; do sleep 0.1; done; done
    ;;
  be) # in the namespaces of host $1
    hostname "$1"
    mount --bind "$folder/passwd" /etc/passwd
    mount -t tmpfs tmpfs /home && mkdir $home && mount --bind "$folder/$1" $home
    for place in /run /dev/shm /tmp; do mount -t tmpfs -o mode=1777 tmpfs $place; done
    mkdir -m 755 /run/sshd
    ssh-keygen -q -t ed25519 -N '' -f /run/host_key
    mount -o remount,ro,bind /
    exec /usr/sbin/sshd -D -e -h /run/host_key -o PidFile=none -o UsePAM=no -o StrictModes=no \
      -o PermitRootLogin=prohibit-password -o AuthorizedKeysFile=$home/.ssh/authorized_keys
    ;;
  in)
    name=$1
    shift
    # The host's first process is the child of `unshare`.
    first=$(pgrep -P "$(cat "$folder/$name.pid")" | head -n 1)
    exec nsenter --target "$first" --mount --uts --pid --net env -i HOME=$home USER=root TERM=dumb \
      PATH="$home/dreamfleet/env/bin:/usr/sbin:/usr/bin:/sbin:/bin" bash -c 'cd && exec "$@"' - "$@"
    ;;
  down)
    for file in "$folder"/*.pid; do
      kill -9 "$(cat "$file")" 2> /dev/null || true   # its namespace's first process goes with it, and all others with that
      rm "$file"
    done
    for namespace in $(ip netns list | cut -d ' ' -f 1 | grep '^dfl-'); do ip netns del "$namespace"; done
    ;;
esac
