#!/bin/sh
# counted.sh plain|ext4 PROGRAM [WORD...]: a program of the exact set, where the CPU counts.
#
# It finds what the exact machine has, a tmpfs on /tmp and an ext4 in memory, in a mount namespace of
# its own: nothing of that is left when it has ended, and nothing comes onto the machine's disk.
# 77: it cannot be counted here, and the last line says why.
set -eu

cannot() {
    echo "no counters: $*" >&2
    exit 77
}

for one in unshare gzip dd mknod; do
    command -v "$one" >/dev/null || cannot "this image has no $one"
done
case $1 in
plain | ext4)
    exec unshare --mount sh "$0" "inside-$1" "$@"
    ;;
inside-plain | inside-ext4) ;;
*)
    echo "usage: counted.sh plain|ext4 PROGRAM [WORD...]" >&2
    exit 2
    ;;
esac

kind=$1
shift 2
mount -t tmpfs none /tmp
if [ "$kind" = inside-plain ]; then
    exec "$@"
fi
# The first RAM disk has the board's root. The second one is there as soon as it is opened.
[ -d /mnt ] || cannot "this image has no /mnt"
mknod /tmp/ram1 b 1 1
# As on the exact machine, a block is made when it is written for the first time.
sparse=
if blkdiscard /tmp/ram1 2>/dev/null; then
    sparse=conv=sparse
fi
gzip -dc ext4.img.gz | dd of=/tmp/ram1 bs=4096 iflag=fullblock $sparse 2>/dev/null
mount -t ext4 /tmp/ram1 /mnt
code=0
EXACT_EXT4=/mnt "$@" || code=$?
umount /mnt
blkdiscard /tmp/ram1 2>/dev/null || true
exit $code
