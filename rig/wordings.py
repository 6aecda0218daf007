"""What kernels, old ones above all, say of themselves in words that no heading has: one line of it.

A template is a line as it is printed, "*" for what differs; what follows ": *" at its end is the
report. Each is from the source that it names,
of the tree of 6.12 where no version is given, and of the oldest kernel in which it was read else.
"""

from __future__ import annotations

import re

# type, source, whether a stack follows, templates.
_Said = tuple[str, str, bool, tuple[str, ...]]

_SAID: tuple[_Said, ...] = (
    # -- memory --------------------------------------------------------------------------------
    (
        *("slab", "mm/slab.c (2.6.0; 2.4 where it says so)", True),
        (
            "slab: double free detected in cache '*', objp *",
            "kfree_debugcheck: out of range ptr *h.",
            "kfree_debugcheck: bad ptr *h.",
            "SLAB: cache with size * has lost its name",
            "kmem_cache_destroy: Can't free all objects *",  # 2.4
            "0x*: not aligned to ARCH_SLAB_MINALIGN=",
        ),
    ),
    (
        *("slab", "mm/slub.c (2.6.22)", True),
        (
            "*** SLUB: * in *@0x* Slab 0x",
            "*** SLUB: * check fails in *@* Slab ",
            "*** SLUB *: *@0x* slab 0x",
            "*** SLUB *: * in slab @0x",
            "@@@ SLUB: * slab 0x* object at 0x* not freed.",
            "SLUB: * slab 0x*: Padding fails check",
            "SLUB: * Not a valid slab page @0x",
            "SLUB: * Corrupted offset * in slab @0x",
            "SLUB: * Inuse * > max * in slab page @0x",
            "SLUB: * slab 0x* freepointer 0x* corrupted.",
            "SLUB: * Object 0x*@0x* already allocated.",
            "SLUB: * slab 0x* invalid object pointer 0x",
            "SLUB: * slab 0x* object 0x* already free.",
            "slab_free * size *: attempt tofree object(0x*) outside of slab.",
            "slab_free : no slab(NULL) for object 0x",
            "slab_free *(*): object at 0x* belongs to slab ",
        ),
    ),
    (
        *("slab", "mm/slub.c validate_slab_node", False),
        (
            "SLUB *: * partial slabs counted but counter=",
            "SLUB: * * slabs counted but counter=",
            "SLUB *: * slabs counted but counter=",
            "slab *: page 0x* wrong object count. counter is * but counted were ",  # 2.6.22
        ),
    ),
    (
        *("bad-page", "mm/rmap.c (2.6.15)", True),
        ("Eeek! page_mapcount(page) went negative! (",),
    ),
    (
        *("other", "mm/vmalloc.c", False),
        (
            "Whee.. Swapped out page in kernel page table",
            "Trying to vfree() bad address (",
            "Trying to vfree() nonexistent vm area (",
        ),
    ),
    # -- locks, timers, interrupts, tasks ----------------------------------------------------------
    (
        *("lockdep", "include/linux/spinlock.h (2.4, 2.6.0)", False),
        (
            "*:*: spin_lock(*) already locked by ",
            "*:*: spin_is_locked(*) already locked by ",
            "*:*: spin_trylock(*) already locked by ",
            "*:*: spin_is_locked on uninitialized spinlock ",
            "*:*: spin_unlock_wait(*) owned by ",
            "*:*: spin_unlock_wait(*) deadlock",
            "*:*: spin_unlock(*) not locked",
        ),
    ),
    (
        *("lockdep", "kernel/locking/rtmutex.c", False),
        ("Maximum lock depth * reached task: ",),
    ),
    (
        *("other", "kernel/softirq.c, kernel/irq/handle.c", False),
        (
            "Attempt to kill tasklet from interrupt",
            "IRQ * device * returned IRQ_WAKE_THREAD but no thread function available.",
        ),
    ),
    (
        *("other", "kernel/sched/topology.c sched_domain_debug_one", False),
        (
            "ERROR: domain->span does not contain CPU",
            "ERROR: domain->groups does not contain CPU",
            "ERROR: groups don't span domain->span",
            "ERROR: parent span is not a superset of domain->span",
        ),
    ),
    (
        *("other", "kernel/power/process.c try_to_freeze_tasks", True),
        (
            "Freezing of tasks failed after * seconds (",
            "Freezing of user space processes failed after * seconds (",
            "Freezing user space processes failed after * seconds (",
            "Freezing remaining freezable tasks failed after * seconds (",
        ),
    ),
    (
        *("hung-task", "drivers/base/power/main.c dpm_watchdog_handler", True),
        ("*: **** DPM device timeout", "**** DPM device timeout"),
    ),
    (
        *("other", "drivers/base/core.c device_release (< 5.10; a WARN() since)", False),
        ("Device '*' does not have a release() function, it is broken and must be fixed.",),
    ),
    (
        *("other", "crypto/testmgr.c", False),
        (
            "alg: *: * test failed (wrong result) on test vector ",
            "alg: drbg: Test * failed for ",
            "alg: rsa: * test failed. ",
            "alg: rsa: test failed on vector ",
            "alg: comp: Compression test * failed for ",
        ),
    ),
    (
        *("other", "lib/crc32test.c", False),
        ("crc32: * self tests failed", "crc32c: * self tests failed"),
    ),
    # -- network -----------------------------------------------------------------------------------
    (
        *("other", "include/linux/rtnetlink.h, include/linux/kernel.h BUG_TRAP (2.4, 2.6)", False),
        ("KERNEL: assertion (*) failed at ", "RTNL: assertion failed at *(*):"),
    ),
    (
        *("other", "net/ipv4/af_inet.c, net/unix/af_unix.c, net/core/dev.c", False),
        (
            "Attempt to release TCP socket in state ",
            "IPv4: Attempt to release TCP socket in state ",
            "Attempt to release alive inet socket ",
            "IPv4: Attempt to release alive inet socket ",
            "Attempt to release alive unix socket: ",
            "unix: Attempt to release alive unix socket: ",
            "Freeing alive device ",
            "unregister_netdevice: device * never was registered",
        ),
    ),
    (
        *("other", "net/ipv4/fib_semantics.c, net/ipv4/devinet.c, net/ipv6/addrconf*.c", False),
        (
            "Freeing alive fib_info ",
            "Freeing alive in_device ",
            "Freeing alive inet6 address ",
            "Freeing alive inet6 device ",
        ),
    ),
    (
        *("other", "net/core/dev.c __dev_queue_xmit", False),
        (
            "Dead loop on virtual device *, fix it urgently!",
            "Dead loop on netdevice *, fix it urgently!",  # 2.4
        ),
    ),
    (
        *("other", "net/ipv4/tcp.c tcp_recvmsg (2.4; a WARN() since 2.6.38)", False),
        ("recvmsg bug: copied * seq ", "*: recvmsg bug: copied * seq "),
    ),
    (
        *("other", "net/ipv4/netfilter (2.4), net/sched/sch_htb.c (2.4)", False),
        (
            "IP_NF_ASSERT: *:*:",
            "HTB: dequeue bug (*), report it please !",
        ),
    ),
    (
        *("other", "drivers/net/8139too.c and what was copied from it (2.4)", False),
        ("Assertion failed! *,*,*,line=", "*: Assertion failed! *,*,*,line="),
    ),
    # -- machines ----------------------------------------------------------------------------------
    (
        *("other", "arch/alpha/kernel: core_cia.c, irq_alpha.c, err_titan.c, err_ev6.c", False),
        (
            "CIA machine check: *",
            "* machine check: vector=0x* pc=0x* code=0x",
            "*System Uncorrectable Error (Vector 0x",
            "*CPU Uncorrectable Error (Vector 0x",
            "Interprocessor interrupt? You must be kidding!",
            "Hardware intr *? Huh?",
        ),
    ),
    (
        *("other", "arch/sparc/kernel/traps_64.c, pci_schizo.c, pci_psycho.c, pci_sabre.c", False),
        (
            "ERROR(*): Cheetah error trap taken afsr[",
            "*: PCI Error, primary error type[",
            "*: Uncorrectable Error, primary error type[",
        ),
    ),
    (
        *("other", "arch/ia64/kernel/mca.c (< 6.7)", False),
        ("Entered OS MCA handler. PSP=",),
    ),
    (
        *("other", "arch/mips: mm/cerr-sb1.c, sgi-ip22, sgi-ip27/ip27-berr.c", False),
        (
            "Cache error exception on CPU ",
            "MC Bus Error",
            "HPC3 Bus Error 0x",
            "Slice * got *be at 0x",
        ),
    ),
    (
        *("other", "arch/powerpc/platforms/pseries/ras.c", False),
        ("Fatal hardware error detected. Check RTAS error log for details.",),
    ),
    (
        *("other", "arch/frv/kernel/traps.c (< 4.17)", True),
        (
            "-- Insn Access Error --",
            "-- Illegal Instruction --",
            "-- Atomic Op Error --",
            "-- Media Exception --",
            "-- Memory Access Exception --",
            "-- Data Access Error --",
            "-- Data Store Error --",
            "-- Division Exception --",
            "-- Compound Exception --",
        ),
    ),
    (
        *("hard-lockup", "drivers/soc/qcom/watchdog_v2.c, arch/arm/mach-msm (Android)", False),
        ("Watchdog bark! Now = *", "*: Watchdog bark! Now = *", "*Causing a watchdog bite!"),
    ),
    # -- PaX, LKRG, OpenVZ -------------------------------------------------------------------------
    (
        *("refcount", "fs/exec.c (PaX)", True),
        ("PAX: refcount * detected in: ", "PAX: From *: refcount * detected in: "),
    ),
    (
        *("usercopy", "fs/exec.c pax_report_usercopy (PaX)", True),
        (
            "PAX: kernel memory leak attempt detected from ",
            "PAX: kernel memory overwrite attempt detected to ",
            "PAX: From *: kernel memory * attempt detected ",
        ),
    ),
    (
        *("other", "arch/x86/kernel/traps.c, gcc-plugins/size_overflow (PaX)", True),
        (
            "PAX: size overflow detected in function ",
            "PAX: overwritten function pointer detected: ",
            "PAX: overwritten return address detected: ",
            "PAX: RAP hash violation for ",
            "PAX: *, attempted to modify kernel code",
        ),
    ),
    (
        *("general-protection", "arch/x86/kernel/traps.c (PaX)", True),
        ("PAX: suspicious general protection fault: ", "PAX: suspicious stack segment fault: "),
    ),
    (
        *("stack-overflow", "arch/x86/kernel/traps.c (grsecurity)", True),
        ("grsec: kernel stack overflow detected: ",),
    ),
    (
        *("other", "LKRG, src/modules", False),
        (
            "LKRG: ALERT: DETECT: *",
            "LKRG: ALERT: BLOCK: *",
            "LKRG: FAULT: *",
            "[p_lkrg] ALERT !!! *",  # < 0.9.2
        ),
    ),
    (
        *("other", "kernel/bc/beancounter.c (OpenVZ)", True),
        (
            "UB: leaked beancounter ",
            "Uncharging too much * h *, res ",
            "BC: Uncharging too much of ",
        ),
    ),
    # -- file systems ------------------------------------------------------------------------------
    (
        *("filesystem", "fs/reiserfs (2.4): no prefix but a number", False),
        (
            "vs-4010: is_reusable: block number is out of range ",
            "vs: 4020: is_reusable: bitmap block *",
            "vs-4030: is_reusable: there is no so many bitmap blocks",
            "vs-4040: is_reusable: corresponding bit of block ",
            "vs-4050: is_reusable: this is root block ",
            "vs-4075: reiserfs_free_block: block * is out of range on ",
            "vs-4080: reiserfs_free_block: free_block (*)[dev:blocknr]: bit already cleared",
            "vs-4130: reiserfs_new_blocknrs: trying to allocate log block ",
            "vs-6010: check_leaf_block_head: invalid item number ",
            "vs-6020: check_leaf_block_head: invalid free space ",
            "vs-6025: check_internal_block_head: invalid level ",
            "journal-699: buffer write failed",
            "journal-712: buffer write failed",
            "journal-715: flush_journal_list, length is ",
            "journal-813: BAD! buffer ",
            "journal-844: panic journal list is flushing, wcount is not 0",
            "journal-923: buffer write failed",
            "journal-945: saved_bh->b_count < 0",
            "journal-949: buffer write failed",
            "journal-1011: cn->bh is NULL",
            "journal-1012: cn->bh is NULL",
            "reiserfs[*]: assertion * failed at ",
        ),
    ),
    (
        *("filesystem", "fs/reiserfs/stree.c (3.x)", False),
        (
            "REISERFS warning: reiserfs-* is_leaf: ",
            "REISERFS warning: reiserfs-* is_internal: ",
            "REISERFS warning: reiserfs-* is_tree_node: ",
        ),
    ),
    (
        *("filesystem", "fs/xfs (2.4, 2.6)", False),
        (
            "XFS: failed to locate log tail",
            "XFS: Log inconsistent or not a log (last==0, first!=1)",
            "XFS: xlog_recover_add_to_trans: bad header magic number",
            "XFS: xlog_recover_unlink_tid: trans not found",
            "XFS: xlog_recover_do_inode_trans: Invalid flag",
            "*: ondisk-dquot 0x*, ID mismatch: ",
            "xlog_verify_iclog: corrupt iclog ring",
            "xlog_verify_iclog: invalid magic num",
            "xlog_verify_iclog: unexpected magic num",
            "xlog_verify_iclog: invalid clientid ",
        ),
    ),
    (
        *("filesystem", "fs/gfs2/util.c; gfs-kernel/src/gfs/util.c", False),
        (
            'GFS2: fsid=*: warning: assertion "*" failed',
            "GFS2: fsid=*: fatal assertion failed",
            'GFS: fsid=*: fatal: assertion "*" failed',
            'GFS: fsid=*: warning: assertion "*" failed',
            "GFS: fsid=*: fatal: filesystem consistency error",
            "GFS: fsid=*: fatal: invalid metadata block",
            "GFS: fsid=*: fatal: I/O error",
        ),
    ),
    (
        *("filesystem", "fs/dquot.c (2.4)", False),
        (
            "VFS: find_free_dqentry(): Can't remove block (*) from entry free list.",
            "VFS: find_free_dqentry(): Data block full but it shouldn't.",
            "VFS: Inserting already present quota entry (block ",
            "VFS: Quota structure has offset to other block (",
            "VFS: Quota for id * referenced but not present.",
            "VFS: Can't move quota data block (*) to free list.",
            "VFS: Can't insert quota data block (*) to free entry list.",
            "VFS: Quota invalidated while reading!",
            "VFS: dqput: trying to free free dquot",
            "dqput: dquot already on free list??",
            "VFS: dqget(): Quota invalidated in dqget()!",
            "VFS: dqduplicate(): ",
            "VFS: dqputduplicate(): Duplicated dquot put without duplicate reference.",
        ),
    ),
    (
        *("other", "block/blk-core.c blk_update_request (< 5.0)", False),
        ("blk: request botched", "request botched: dev "),
    ),
    (
        *("memory-leak", "fs/btrfs/extent-io-tree.c, fs/btrfs/extent_io.c", False),
        ("BTRFS: state leak: start ", "BTRFS: buffer leak start ", "btrfs state leak: start "),
    ),
    (
        *("hung-task", "Lustre, ptlrpc/service.c", True),
        ("*: Service thread pid * was inactive for *. The thread might be hung",),
    ),
    (
        *("other", "fs/buffer.c, fs/open.c, fs/locks.c", False),
        (
            "VFS: brelse: Trying to free free buffer",
            "VFS: Close: file count is 0",
            "Leaked locks on dev=0x",
            "__find_get_block_slow() failed. block=",
        ),
    ),
    (
        *("filesystem", "fs/btrfs/disk-io.c (3.4)", False),
        (
            "parent transid verify failed on * wanted * found ",
            "btrfs bad tree block start ",
            "btrfs bad fsid on block ",
            "btrfs: * checksum verify failed on * wanted * found ",
            "btrfs: corrupt leaf, ",
            "btrfs warning page private not zero on page ",
        ),
    ),
    (
        *("filesystem", "fs/sysv/balloc.c, fs/minix/bitmap.c, fs/minix/inode.c", False),
        (
            "sysv_free_block: trying to free block not in datazone",
            "sysv_free_block: flc_count > flc_size",
            "sysv_new_block: new block * is not in data zone",
            "sysv_new_block: free-list block with >flc_size entries",
            "sysv_count_free_blocks: new block * is not in data zone",
            "sysv_count_free_blocks: >flc_size entries in free-list block",
            "minix_free_block: nonexistent bitmap buffer",
            "Trying to free block not in datazone",
            "trying to free block not in datazone",
            "free_block (*): bit already cleared",
            "Bad inode number on dev *: * is out of range",
        ),
    ),
    (
        *("filesystem", "fs/hfs/bnode.c, fs/hfsplus/bnode.c (2.6)", False),
        (
            "hfs: request for non-existent node * in B*Tree",
            "hfsplus: request for non-existent node * in B*Tree",
            "hfs: inconsistency in B*Tree (",
            "hfsplus: inconsistency in B*Tree (",
            "hfs: trying to free free bnode ",
            "hfsplus: trying to free free bnode ",
            "new node * already hashed?",
        ),
    ),
    (
        *("filesystem", "fs/jffs2/nodemgmt.c", False),
        (
            "jffs2: Eep. Block 0x* taken from free_list had free_size of 0x",
            "Eep. Block 0x* taken from free_list had free_size of 0x",  # 2.4
            "jffs2: argh. node added in wrong place",
            "argh. node added in wrong place",  # 2.6
            "jffs2: EEEEEK. jffs2_mark_node_obsolete called with NULL node",
            "EEEEEK. jffs2_mark_node_obsolete called with NULL node",
            "jffs2: raw node at 0x* is off the end of device!",
            "jffs2: raw unchecked node of size 0x",
            "jffs2: raw node of size 0x* freed from erase block ",
            "jffs2: Node totlen on flash (0x*) != totlen from node ref (0x",
        ),
    ),
    (
        *("filesystem", "drivers/mtd/ubi/scan.c (3.4)", False),
        (
            "UBI error: *: two LEBs with same sequence number ",
            "UBI error: *: PEB * contains corrupted VID header, ",
            "UBI error: *: bad image sequence number * in PEB ",
            "UBI error: *: * PEBs are corrupted and preserved",
            "UBI error: *: too many corrupted PEBs, refusing",
            "UBI error: *: highest_vol_id is *, but vol_id * is there",
        ),
    ),
    (
        *("filesystem", "fs/yaffs2/yaffs_guts.c", False),
        (
            "Block * has undefined state ",
            "Block * has bad run-state ",
            "Block * has illegal values pagesInUsed ",
            "Block * has inconsistent values pagesInUse ",
            "Block * is in state * after gc, should be erased",
            "Checkpoint block count wrong dev ",
            "Erased block count wrong dev ",
            "Obj * header type is illegal value 0x",
            "Obj * header mismatch ",
            "Obj * had tnode tallness *, needs to be ",
            "Object * chunkId * NAND mismatch chunk ",
            "Obj * has parent pointer * which does not look like an object",
            "Obj *'s parent is not a directory (type ",
            "Obj * has illegaltype ",
        ),
    ),
    (
        *("filesystem", "fs/ocfs2/super.c, fs/ocfs2/cluster/quorum.c", False),
        (
            "(*,*,*):* ERROR: bad block number on superblock: found ",
            "(*,*,*):* ERROR: bad root_blkno: 0",
            "(*,*,*):* ERROR: ocfs2 journal load failed! ",
            "*** ocfs2 is very sorry to be fencing this system by restarting ***",
        ),
    ),
    (
        *("filesystem", "fs/jbd2/journal.c, fs/jbd2/recovery.c, include/linux/jbd2.h", False),
        (
            "JBD2 unexpected failure: ",
            "JBD2: Invalid checksum recovering block * in log",
            "*: journal block not found at offset * on ",
            "EXT3-fs unexpected failure: ",  # include/linux/jbd.h (2.6)
        ),
    ),
    (
        *("filesystem", "drivers/md: md.c (2.4), persistent-data", False),
        (
            "md: bug in file *, line ",
            "md: fatal superblock inconsistency in ",
            "device-mapper: block manager: * validator check failed for block ",
            "device-mapper: block manager: recursive lock detected in *metadata",
            "device-mapper: block manager: recursive acquisition of block * requested.",
            "device-mapper: block manager: validator mismatch (old=* vs new=*) for block ",
        ),
    ),
    (
        *("other", "drivers/block: drbd (8.0 to 6.1), rbd.c", False),
        (
            "*drbd*: ASSERT( * ) in *:",
            "*drbd*: ASSERT FAILED: *: (*) in *:",
            "*drbd*: ASSERTION * FAILED in ",
            "*drbd*: BAD! BarrierAck #* received, expected #",
            "Assertion failure in *() at line *:",
        ),
    ),
    (
        *(
            "filesystem",
            "fs/isofs/dir.c, fs/cramfs/uncompress.c, fs/nilfs2/btree.c (2.6.30)",
            False,
        ),
        (
            "iso9660: Corrupted directory entry in block * of inode ",
            "Error * while decompressing!",
            "NILFS: bad btree node (blocknr=",
        ),
    ),
    (
        *("filesystem", "fs/fat/misc.c (2.4), fs/ufs/super.c, fs/ext2/super.c", False),
        (
            "Filesystem panic (dev *",
            "FAT: Filesystem panic (dev *",
            "FAT: Filesystem error (dev *",
            "UFS-fs error (device *): ",
            "UFS-fs panic (device *): ",
            "EXT2-fs panic (device *): ",
            "LDISKFS-fs error (device *): ",
        ),
    ),
    (
        *("other", "drivers/infiniband/core/restrack.c (5.10)", False),
        ("* *: BUG: RESTRACK detected leak of resources",),
    ),
    (
        *("other", "SPL 0.6, module/spl/spl-debug.c", True),
        ("SPLError: *",),
    ),
    (
        *("other", "BeeGFS client, common/Common.h", True),
        ("beegfs: *: BUG: * (dumping stack...)",),
    ),
    (
        *("other", "fs/dlm/dlm_internal.h, lock_dlm (gfs)", True),
        ("DLM:  Assertion failed on line ", "lock_dlm:  Assertion failed on line "),
    ),
    (
        *("other", "fs/reiser4/debug.c", True),
        ("reiser4 panicked cowardly: ",),
    ),
)
_DIFFERS = ".{0,160}?"


def all_of_them() -> list[tuple[str, str, str, str, str, bool]]:
    """Of each: type, trigger (its longest piece), pattern, title, source, and whether a stack
    follows.
    """
    found = []
    for kind, source, traced, templates in _SAID:
        for template in templates:
            pieces = _pieces(template)
            # Each piece where it comes first, once and for all: no line takes long.
            rest = (f"(?>{_DIFFERS}{re.escape(piece)})" for piece in pieces[1:])
            pattern = re.escape(pieces[0]) + "".join(rest)
            title = " ".join(template.strip("*: (").rstrip(" :(['\"=,").split())
            title = title.replace(" :", ":").replace("{", "{{").replace("}", "}}")
            if template.endswith(": *"):
                pattern, title = f"{pattern}(?P<what>.*)", f"{title}: {{what}}"
            title += "{f}" if traced else ""
            found.append((kind, max(pieces, key=len), pattern, title, source, traced))
    return found


def _pieces(template: str) -> list[str]:
    """What stands between the stars; three of them in a row are printed."""
    return [piece.replace("\0", "***") for piece in template.replace("***", "\0").split("*")]


__all__ = ["all_of_them"]
