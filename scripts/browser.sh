#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# What the tests of the dashboard need beside Python: scripts/browser.sh
# As root on Debian Chromium is installed where there is none. Without it these tests are skipped and say so.
set -eu
command -v chromium >/dev/null || command -v google-chrome >/dev/null && exit 0
[ "$(id -u)" = 0 ] && command -v apt-get >/dev/null ||
    { echo 'no chromium here (Debian: apt-get install chromium)' >&2; exit 2; }
apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium fonts-dejavu-core
