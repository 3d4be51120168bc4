#!/bin/sh
# Install what the warehouse tests start and pip cannot bring: Postgres, and Java for Spark. Only Debian's packages, as
# root; elsewhere the tests that miss a program are skipped, and say so.
set -eu
missing=""
ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || command -v initdb >/dev/null || missing="postgresql"
command -v java >/dev/null || missing="$missing default-jre-headless"
[ -n "$missing" ] || exit 0
if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    echo "not installed:$missing. Their tests will be skipped" >&2
    exit 0
fi
apt-get update -qq
# shellcheck disable=SC2086 - several names
DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing >/dev/null
