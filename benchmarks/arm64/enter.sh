#!/bin/sh
# Runs one command in an arm64 root: enter.sh ROOT CPUINFO COMMAND...
# To be called in a user and mount namespace of its own (`unshare --user --map-root-user --mount`): everything it mounts and
# registers is gone with its last process, and this machine's own settings stay as they are.
set -eu
root=$1 cpuinfo=$2
shift 2

mount --rbind /proc "$root/proc"
mount --rbind /dev "$root/dev"
# ONNX Runtime reads it on Arm, and crashes on an x86 one.
mount --bind "$cpuinfo" "$root/proc/cpuinfo"

# Since Linux 6.7 each user namespace has its own table of interpreters: by it a helper that the daemon starts is emulated too.
mount -t binfmt_misc binfmt_misc /proc/sys/fs/binfmt_misc
magic='\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00'
mask='\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff'
# F: opened now, for inside the root it would not be found.
echo ":qemu-aarch64:M::$magic:$mask:$(command -v qemu-aarch64-static):F" >/proc/sys/fs/binfmt_misc/register

exec chroot "$root" "$@"
