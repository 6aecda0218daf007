"""A tiny tree with a kernel's Makefile targets: what make does is real, only the code is small."""

from __future__ import annotations

import subprocess
from pathlib import Path

MAKEFILE = """\
VERSION = 6
PATCHLEVEL = 12
SUBLEVEL = 1
EXTRAVERSION =
B = $(O)
RUSTC = rustc
MAP = -fmacro-prefix-map=$(CURDIR)/=
%config:
\t@mkdir -p $(B)/include/config $(B)/arch/x86/boot
\t@echo run >> $(B)/make.runs
\t@sh $(CURDIR)/conf.sh $@ $(B)/.config
\t@v=$$($(RUSTC) --version 2>/dev/null) && echo "CONFIG_RUSTC=\\"$$v\\"" >> $(B)/.config; true
bzImage: vmlinux
\t@cp $(B)/vmlinux $(B)/arch/x86/boot/bzImage
vmlinux:
\t@echo run >> $(B)/make.runs
\t@mkdir -p $(B)/init
\t@echo "  CC      init/main.o"
\t@cd $(B) && $(CC) $(MAP) $(KCFLAGS) $(MORE) -g -O2 -c $(CURDIR)/init/main.c -o init/main.o
\t@echo "  LD      vmlinux"
\t@cd $(B) && $(CC) $(KCFLAGS) -g -static -nostdlib -Wl,-e,start_kernel -o vmlinux init/main.o
\t@echo 0 > $(B)/System.map
\t@echo 6.12.1-fake > $(B)/include/config/kernel.release
headers_install:
\t@mkdir -p $(INSTALL_HDR_PATH)/include
modules:
\t@mkdir -p $(B)/drivers
\t@echo "  CC [M]  drivers/it.o"
\t@cd $(B) && $(CC) $(KCFLAGS) -g -c $(CURDIR)/drivers/it.c -o drivers/it.ko
modules_install: AT = $(INSTALL_MOD_PATH)/lib/modules/6.12.1-fake
modules_install:
\t@mkdir -p $(AT)/kernel/drivers && ln -s $(B) $(AT)/build && ln -s $(CURDIR) $(AT)/source
\t@cp $(B)/drivers/it.ko $(AT)/kernel/drivers
\t@[ ! "$(INSTALL_MOD_STRIP)" ] || strip --strip-debug $(AT)/kernel/drivers/it.ko
\t@PATH=$$PATH:/sbin:/usr/sbin depmod -b $(INSTALL_MOD_PATH) 6.12.1-fake || echo Warning: no depmod
"""

# olddefconfig: the last setting of a symbol counts; what Kconfig does not offer is dropped.
CONF = """\
test "$1" = tinyconfig && { : > "$2"; exit 0; }
grep '^CONFIG_' "$2" | tac | awk -F= '!seen[$1]++' | tac > "$2.new"
: > "$2"
while IFS= read -r line; do
  case "$line" in
    CONFIG_FOO=*|CONFIG_NET=*|CONFIG_RUST=*|CONFIG_MODULES=*|CONFIG_IT=*) echo "$line" >> "$2" ;;
    CONFIG_BAR=*) grep -q '^CONFIG_FOO=y' "$2.new" && echo "$line" >> "$2" ;;
  esac
done < "$2.new"
rm "$2.new"
"""

KCONFIG = """\
config FOO
\tbool "Foo"
config NET
\tbool "Networking"
config BAR
\tbool "Bar"
\tdepends on FOO
\thelp
\t  Needs foo.
config HIDDEN
\tbool
config RUST
\tbool "Rust"
config MODULES
\tbool "Modules"
config IT
\ttristate "It"
"""

MAIN_C = """\
void start_kernel(void);
int counter;

void start_kernel(void)
{
\tcounter = 1;
\tfor (;;)
\t\t;
}

const char *const where = __FILE__;
"""

PATCH = """\
From 1111111111111111111111111111111111111111 Mon Sep 17 00:00:00 2001
From: A Developer <dev@example.org>
Date: Mon, 5 Jan 2026 10:00:00 +0000
Subject: [PATCH] init: count from two

Two is better.

Signed-off-by: A Developer <dev@example.org>
---
 init/main.c | 2 +-
 1 file changed, 1 insertion(+), 1 deletion(-)

diff --git a/init/main.c b/init/main.c
--- a/init/main.c
+++ b/init/main.c
@@ -3,7 +3,7 @@ int counter;
 
 void start_kernel(void)
 {
-\tcounter = 1;
+\tcounter = 2;
 \tfor (;;)
 \t\t;
 }
--
2.39.5
"""


def make_tree(directory: Path) -> Path:
    """Write the tree to directory and return it."""
    (directory / "init").mkdir(parents=True)
    (directory / "Makefile").write_text(MAKEFILE)
    (directory / "conf.sh").write_text(CONF)
    (directory / "Kconfig").write_text(KCONFIG)
    (directory / "init" / "main.c").write_text(MAIN_C)
    (directory / "drivers").mkdir()
    (directory / "drivers" / "it.c").write_text("int it(void) { return 1; }\n")
    return directory


def make_series(directory: Path, **patches: str) -> Path:
    """A quilt directory of these patches, in the order given."""
    directory.mkdir(parents=True)
    for name, text in patches.items():
        (directory / f"{name}.patch").write_text(text)
    (directory / "series").write_text("".join(f"{name}.patch\n" for name in patches))
    return directory


def make_project(root: Path, toml: str) -> Path:
    """A directory with this rig.toml and a fragment `base` that asks for FOO."""
    (root / "kernel-configs").mkdir(parents=True)
    (root / "kernel-configs" / "base.config").write_text("CONFIG_FOO=y\n")
    (root / "rig.toml").write_text(toml)
    return root


def commit_all(tree: Path, message: str) -> None:
    """Make tree a git repository, or add a commit to it."""
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
    for words in (["init", "-q"], ["add", "-A"], [*identity, "commit", "-q", "-m", message]):
        subprocess.run(["git", "-C", str(tree), *words], check=True)
