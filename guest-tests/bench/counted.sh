#!/bin/sh
# counted.sh plain|ext4 PROGRAM [WORD...]: a program of the exact set, where the CPU counts.
#
# It finds what the exact machine has, a tmpfs on /tmp and an ext4 in memory, in a mount namespace of
# its own: nothing of that is left when it has ended, and nothing comes onto the machine's disk.
set -eu

case $1 in
plain | ext4)
    exec unshare --mount sh "$0" "inside-$1" "$@"
    ;;
esac

kind=$1
shift 2
mount -t tmpfs none /tmp
if [ "$kind" = inside-ext4 ]; then
    # The first RAM disk has the board's root. The second one is there as soon as it is opened.
    mknod /tmp/ram1 b 1 1
    gzip -dc ext4.img.gz >/tmp/ram1
    mount -t ext4 /tmp/ram1 /mnt
    rm /tmp/ram1
    export EXACT_EXT4=/mnt
fi
exec "$@"
