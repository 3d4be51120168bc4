#!/bin/sh
# Install the browser that the tests of the page of a night start: Debian's Chromium, as root; elsewhere these tests are
# skipped, and say so.
set -eu
! command -v chromium >/dev/null || exit 0
if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    echo "not installed: chromium. The tests in a browser will be skipped" >&2
    exit 0
fi
apt-get update -qq
DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium fonts-liberation >/dev/null
