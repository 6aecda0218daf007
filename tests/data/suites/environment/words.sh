#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
echo "TAP version 13"
echo "1..1"
[ "$WORDS" = "two words" ] && echo "ok 1 words" && exit
echo "not ok 1 words"
exit 1
