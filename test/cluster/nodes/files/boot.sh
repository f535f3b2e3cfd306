#!/bin/sh
# Makes the file system of a node, inside its namespaces: boot.sh ROOT NAME KUBERNETES
# CONTAINERD DEBIAN. ROOT becomes /, so that whatever a pod mounts from its node is
# in there; programs come from this machine, read-only.
set -eu
root=$1 name=$2 kubernetes=$3 containerd=$4 debian=$5

mount --make-rprivate /
echo "$name" >/proc/sys/kernel/hostname
echo 1 >/proc/sys/net/ipv4/ip_forward
mount --bind "$root" "$root"
cd "$root"

readonly_bind() {
	mkdir -p "$2"
	mount --bind "$1" "$2"
	mount -o remount,bind,ro "$2"
}
for dir in bin sbin lib lib64; do
	if [ -L "/$dir" ]; then
		ln -sfn "$(readlink "/$dir")" "$dir"
	elif [ -d "/$dir" ]; then
		readonly_bind "/$dir" "$dir"
	fi
done
readonly_bind /usr usr
readonly_bind "$kubernetes" opt/node/kubernetes
readonly_bind "$containerd" opt/node/containerd
readonly_bind "$debian" opt/node/debian

mkdir -p dev proc sys run tmp old root home var/tmp var/log
ln -sfn /run var/run
mount --rbind /dev dev
mount --make-rslave dev
mount -t sysfs sysfs sys
mount --rbind /sys/fs/cgroup sys/fs/cgroup
mount -t proc proc proc
mount -t tmpfs -o mode=755 tmpfs run
mount -t tmpfs -o mode=1777 tmpfs tmp

# kubelet sets these, which belong to the whole machine; and each boot of a node is
# one to be told apart.
cat /proc/sys/kernel/random/uuid >run/boot_id
mount --bind run/boot_id proc/sys/kernel/random/boot_id
for setting in vm/overcommit_memory vm/panic_on_oom kernel/panic kernel/panic_on_oops \
	kernel/keys/root_maxkeys kernel/keys/root_maxbytes; do
	mkdir -p "run/sysctl/${setting%/*}"
	cat "/proc/sys/$setting" >"run/sysctl/$setting"
	mount --bind "run/sysctl/$setting" "proc/sys/$setting"
done

pivot_root . old
cd /
umount -l /old
mount --make-rshared /
