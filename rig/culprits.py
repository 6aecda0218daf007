"""Which functions are never to blame for what they report, and what a function is called."""

from __future__ import annotations

import re

_SUFFIX = re.compile(r"(?:\.(?:constprop|isra|part|cold|llvm|lto_priv|localalias)(?:\.\d+)*)+$")

# Functions that report, check, allocate, copy, lock or wait for somebody else.
_HELPER_NAMES = (
    # the reporting itself: lib/dump_stack.c, kernel/panic.c, lib/bug.c, arch/*/kernel/traps.c
    r"_*dump_stack\w*|show_(?:stack|trace|regs)\w*|dump_trace|print_\w+|report_bug|fixup_bug"
    r"|_*warn_\w+|__warn|v?panic|die|die_\w+|__die\w*|oops_\w+|handle_bug|do_error_trap|do_trap|asm_exc_\w+|exc_\w+"
    r"|do_invalid_op|invalid_op|(?:async_)?page_fault\w*|no_context|bad_area\w*|error_entry"
    r"|do_(?:user|kern)_addr_fault|check_panic_on_warn|ass(?:ert)?fail|asswarn|hex_dump_\w+|el[01]\w+|__stack_chk_fail|dump_backtrace\w*"
    r"|unwind_backtrace|walk_stackframe|bug_handler|brk_handler|call_break_hook|do_debug_exception"
    r"|xfs_\w*(?:corruption_error|error_report|verifier_error)|warn_slowpath_\w+|__report_bad_irq"
    r"|(?:L|_*)div0\w*|bad_page_fault|_exception\w*|ex_handler_\w+|native_(?:read|write)_msr\w*|check_bytes_and_report",
    # sanitizers: mm/kasan, mm/kmsan, kernel/kcsan, mm/kfence, lib/ubsan.c
    r"_*(?:kasan|asan|hwasan|kmsan|msan|kcsan|tsan|kfence|ubsan)_\w+|check_memory_region"
    r"|handle_overflow|val_to_string|end_report|start_report",
    # copying: lib/string.c, lib/usercopy.c, mm/usercopy.c
    r"_*mem(?:cpy|set|move|cmp|chr|scan|dup)\w*|_*str[nlrs]?(?:cpy|cat|len|cmp|chr|str|scpy)\w*"
    r"|_*fortify_(?:panic|report)|rep_\w+|_*copy_(?:to|from|in)_\w+|_*copy_user\w*|_*clear_user\w*|__check_object_size"
    r"|_*check_heap_object|usercopy_\w+",
    # counters, lists, object debugging: lib/refcount.c, lib/list_debug.c, lib/debugobjects.c
    r"_*refcount_\w+|kref_\w+|_*h?list_(?:add|del|move|splice|replace)\w*|debug_object_\w+"
    r"|debug_print_object|__debug_\w+|debug_check_no_obj_freed"
    # kernel/dma/debug.c
    r"|check_(?:un)?map(?:_\w+)?|check_sync|debug_dma_\w+|add_dma_entry|err_printk"
    # lib/kobject.c, mm/vma.c, kernel/irq/manage.c
    r"|kobject_(?:init|add)\w*|sysfs_(?:warn_dup|(?:do_)?create_\w+|add_\w+)|internal_create_group\w*|validate_mm|__setup_irq|request_threaded_irq",
    # allocators: mm/slub.c, mm/page_alloc.c, mm/vmalloc.c, mm/kmemleak.c
    r"k?v?free(?:_sensitive|_bulk|_rcu\w*)?|kv?free\w*|_*k[cvmz]*alloc(?:_(?:node|trace|noprof|large|order"
    r"|array|cache|bulk|track|caller|nolock|node_align|recursive))*|_*v[mz]?alloc\w*|_*kmem_cache_\w+|_*cache_free\w*|_*slab_\w+"
    r"|do_slab_free|__free_slab|object_err|check_(?:object|slab)\w*|(?:free|alloc)_debug_processing"
    r"|free_to_partial_list|kmemleak_\w+|_*(?:alloc|build)_skb\w*|_*(?:netdev|napi)_alloc_skb\w*|kv?asprintf\w*|k(?:mem|str)n?dup\w*"
    r"|radix_tree_node_alloc|_*alloc_pages\w*|get_page_from_freelist|free_pcp\w*"
    r"|free_unref_\w+|_*free_pages\w*|bad_page|_*put_page\w*|release_pages|_*free_one_page",
    # sleeping and waiting: kernel/sched, kernel/locking
    r"__switch_to\w*|_*synchronize_\w*rcu\w*|_*might_(?:sleep|fault|resched|alloc)\w*|__cant_\w+|__schedule\w*|schedule(?:_\w+)?|preempt_schedule\w*"
    r"|_*cond_resched\w*|io_schedule\w*|_*wait_for_\w+|__wait_\w+|do_wait_\w+|out_of_line_wait\w*"
    r"|bit_wait\w*|wait_on_\w+|folio_wait_\w+|msleep\w*|usleep\w*|rwsem_\w+|_*down(?:_\w+)?"
    r"|_*mutex_\w+|ww_mutex\w*|_*rt_mutex\w*|percpu_(?:down|rwsem)\w*|__percpu_\w+|stop_machine_yield",
    # locks and lockdep: kernel/locking, lib/smp_processor_id.c
    r"_*raw_(?:spin|read|write)_\w+|do_raw_\w+|spin_(?:lock|unlock|bug|dump)\w*|rwlock_bug"
    r"|_*lock_(?:acquire|release|sock|page|is_held)\w*|__lock_\w+|lockdep_\w+|mark_(?:lock|usage|held)\w*"
    r"|check_\w*(?:lock|prev|usage|noncircular|path|redundant|deadlock|wait_context)\w*"
    r"|debug_check_no_locks_\w+|validate_chain|register_lock_class|assign_lock_key|debug_locks_off|trace_hardirqs\w*"
    r"|native_(?:queued_spin|halt|safe_halt|apic|send|smp|stop)\w*|check_preemption_disabled"
    r"|debug_smp_processor_id|__this_cpu_preempt_check|rt_(?:spin|read|write)_\w+|migrate_(?:dis|en)able"
    r"|(?:arch|raw)_local_irq_\w+|_*kthread_(?:create\w*|stop)",
    # watchdogs, ticks, interrupts: kernel/watchdog.c, kernel/rcu, kernel/time, arch entry code
    r"nmi_\w+|arch_trigger_\w+|trigger_\w*backtrace\w*|rcu_sched_clock_irq|rcu_(?:check|dump)_\w+"
    r"|rcu_\w*stall\w*|(?:sched|scheduler)_tick|tick_\w+|update_process_times|_*hrtimer_\w+"
    r"|local_apic_timer\w*|(?:asm_)?_*sysvec_\w+|(?:asm_)?common_interrupt|watchdog_\w+"
    r"|_*perf_\w*event\w*|csd_lock\w*|smp_call_function\w*|on_each_cpu\w*|generic_exec_single"
    r"|delay_\w+|__delay|__const_udelay|__[un]delay|console_\w+|vprintk\w*|_?printk",
    # stack walking and the ends of a stack
    r"unwind_\w+|stack_trace_\w+|stack_depot_\w+|arch_stack_walk|save_stack\w*|ret_from_fork\w*"
    r"|kthread|entry_SYSCALL\w*|do_syscall_\w+|x64_sys_call|rest_init",
)

HELPERS = re.compile("|".join(_HELPER_NAMES))

# Who adds devices and drivers for others: drivers/base, the buses, net/core/dev.c, lib/kunit.
DRIVER_CORE = re.compile(
    r"_*(?:kunit_)?(?:(?:platform|pci|usb|i2c|spi|acpi|auxiliary|faux|virtio|scsi|amba|mdio|of|pnp)_)?"
    r"(?:device_(?:add|(?:register|create)(?:_\w+)?)|(?:driver_register|register_driver)\w*)"
    r"|bus_add_driver|module_add_driver|class_(?:register|create)\w*"
    r"|netdev_register_kobject|register_netdev(?:ice)?"
)

# Where the kernel is entered, or a thread of it begins: below every stack.
ENTRIES = re.compile(
    r"(?:asm_|entry_|ret_from_|el\d|do_syscall_)\w*|kthread|x64_sys_call|rest_init|start_kernel"
    r"|_stext|worker_thread|process_one_work"
)


def function(symbol: str) -> str:
    """A function's name without what the compiler put behind it."""
    return _SUFFIX.sub("", symbol)
