#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# Ends before its plan is kept.
echo "TAP version 13"
echo "1..2"
echo "ok 1 looks_well"
