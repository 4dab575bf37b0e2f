#!/bin/sh
# Installs what dev/cluster and `make images` need from Debian or Ubuntu itself. Run it as root.
# Kubernetes, etcd, Helm and the rest of the cluster are built by `make tools` (Go 1.25 or later).
set -eu

packages="containerd runc containernetworking-plugins iptables conntrack socat iproute2 util-linux ethtool buildah debootstrap"

if [ "$(id -u)" -ne 0 ]; then
    echo "install-debian.sh: run it as root; it installs: $packages" >&2
    exit 1
fi
if ! command -v apt-get >/dev/null; then
    echo "install-debian.sh: this is for Debian and Ubuntu; install the equivalents of: $packages" >&2
    exit 1
fi

# The packages would start services of their own (containerd.service), which the tests never use.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
    trap 'rm -f "$policy"' EXIT
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod +x "$policy"
fi
export DEBIAN_FRONTEND=noninteractive
apt-get update -q
# A kernel with cgroup v2 as a program, which is there for x86 only; its tests are skipped without it.
if apt-cache show user-mode-linux >/dev/null 2>&1; then
    packages="$packages user-mode-linux kmod"
fi
# shellcheck disable=SC2086  # a list of package names
apt-get install -q -y --no-install-recommends $packages
