#!/usr/bin/env bash
# Writes the rule set that a real dockerd makes for the layout of this project's versions up to 0.1: engine and socket
# holder on a bridge network, ports published.
#
#   capture.sh ROOT OUT iptables-nft|iptables-legacy|nftables [OPTION OF dockerd ...]
#
# ROOT is a file system with dockerd, containerd, runc, docker, iptables, nft, ip and busybox-static, such as that of
#   mmdebstrap --variant=extract --aptopt='Acquire::Check-Valid-Until "false"' --include=docker.io,docker-cli,containerd,\
#     runc,iptables,nftables,iproute2,busybox-static,bash,coreutils,util-linux,sed,grep,procps forky ROOT
# (bookworm has 20.10 and no docker-cli, trixie 26.1, forky 28.5; for 29 replace dockerd and docker-proxy by those of
# moby's tag: CGO_ENABLED=0 go build ./cmd/dockerd ./cmd/docker-proxy). OUT is a folder: earlier.* and current.* are
# written there, with the rules of that layout and of this version's. rules/ has those of iptables-nft: with
# iptables-legacy, 20.10, 26.1 and 28.5 made the same rules, with the tables in another order.
#
# It takes root. Everything runs in namespaces of its own, data and sockets are in memory, and all of it ends with the
# script.
set -euo pipefail

if [ "${1:-}" != --inside ]; then
    root=$(realpath "$1")
    out=$(realpath "$2")
    self=$(realpath "$0")
    unshare --net --mount --pid --uts --ipc --fork --kill-child bash "$self" --inside "$root" "$out" "${@:3}" || code=$?
    # What the kernel does not remove with the namespaces.
    find /sys/fs/cgroup -depth -type d -path '*/edge-llm-capture*' -exec rmdir {} + 2>/dev/null || true
    exit "${code:-0}"
fi

root=$2 out=$3 firewall=$4
shift 4
mount --make-rprivate /
mount --bind "$root" "$root"
mount -t proc proc "$root/proc"
mount -t sysfs sysfs "$root/sys"
mount --rbind /sys/fs/cgroup "$root/sys/fs/cgroup"
mount --rbind /dev "$root/dev"
for folder in run tmp var/lib/docker var/lib/containerd mnt; do
    mkdir -p "$root/$folder"
    mount -t tmpfs tmpfs "$root/$folder"
done
mkdir "$root/mnt/old" "$root/mnt/out"
mount --bind "$out" "$root/mnt/out"
cd "$root"
pivot_root . mnt/old
cd /
busybox umount -l /mnt/old
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/tmp TMPDIR=/tmp

case $firewall in
    nftables) options=(--firewall-backend=nftables) backend=nft ;;
    *) options=() backend=${firewall#iptables-} ;;
esac
for name in iptables iptables-save iptables-restore ip6tables ip6tables-save ip6tables-restore; do
    ln -sf "/usr/sbin/xtables-$backend-multi" "/usr/sbin/$name"
done
ip link set lo up
# A host whose forwarding is on before Docker starts keeps the policy ACCEPT of FORWARD; Docker sets DROP where it
# turns forwarding on. The tests set the policy themselves.
sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1

containerd --root /var/lib/containerd --state /run/containerd >/tmp/containerd.log 2>&1 &
export DOCKER_HOST=unix:///run/docker.sock
dockerd --host="$DOCKER_HOST" --pidfile=/run/docker.pid --exec-root=/run/docker --storage-driver=vfs \
    --cgroup-parent=/edge-llm-capture --containerd=/run/containerd/containerd.sock \
    "${options[@]}" "$@" >/tmp/dockerd.log 2>&1 &
for _ in $(seq 600); do
    docker version >/dev/null 2>&1 && break
    sleep 0.2
done
docker version >/dev/null || { tail -n 30 /tmp/containerd.log /tmp/dockerd.log >&2; exit 1; }

mkdir -p /tmp/image/bin
cp "$(command -v busybox)" /tmp/image/bin/busybox
busybox tar -C /tmp/image -c . | docker import - busybox >/dev/null
# network NAME SUBNET: NAME is the bridge's name, too.
network() {
    docker network create --opt "com.docker.network.bridge.name=$1" --subnet "172.$2.0.0/16" --gateway "172.$2.0.1" \
        --ipv6 --subnet "fd$2::/64" --gateway "fd$2::1" "$1" >/dev/null
}
start() {
    docker run --detach "$@" busybox /bin/busybox sleep 600 >/dev/null
}

header="# Docker $(docker version --format '{{.Server.Version}}'), $(iptables --version), $firewall"
header+="${*:+, dockerd $*}${DOCKER_INSECURE_NO_IPTABLES_RAW:+, DOCKER_INSECURE_NO_IPTABLES_RAW=1}"
header+=$'\n# Made by tests/integration/network/capture.sh with a real dockerd.'
save() {
    if [ "$firewall" = nftables ]; then
        { echo "$header"; nft --numeric-priority list ruleset | clean; } > "/mnt/out/$1.nft"
    else
        { echo "$header"; iptables-save | clean; } > "/mnt/out/$1.ipv4"
        { echo "$header"; ip6tables-save | clean; } > "/mnt/out/$1.ipv6"
    fi
}
# Counters and times say nothing.
clean() {
    sed -E -e 's/\[[0-9]+:[0-9]+\]/[0:0]/' -e '/^# (Generated|Completed|Warning)/d' \
        -e 's/packets [0-9]+ bytes [0-9]+/packets 0 bytes 0/'
}

# Someone else's container, which publishes nothing: all that Docker's rules are about in this version's layout.
network others 19
start --network others --ip 172.19.0.2 --ip6 fd19::2 --name other
save current
network edge-llm 18
start --network edge-llm --ip 172.18.0.2 --ip6 fd18::2 --name door --publish 8000:8000 --publish 127.0.0.1:11434:11434
start --network edge-llm --ip 172.18.0.3 --ip6 fd18::3 --name engine
save earlier
docker rm --force other door engine >/dev/null
