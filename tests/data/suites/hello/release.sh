#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
echo "TAP version 13"
echo "1..1"
echo "# $(uname -r)"
if [ -n "$(uname -r)" ]; then echo "ok 1 release"; else echo "not ok 1 release"; exit 1; fi
