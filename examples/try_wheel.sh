#!/bin/sh
# Install a wheel into a clean environment, in a folder of its own, and run the whole job with it. Then install only what
# scoring needs into another one, and score again: the table must be the same.
# usage: PYTHON=python3 GENERATE=generate.py CONSTRAINTS=constraints.txt REQUIREMENTS=requirements-score.txt \
#            sh try_wheel.sh batchrec-*.whl
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"$PYTHON" -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check --constraint "$CONSTRAINTS" "$1"
"$PYTHON" "$GENERATE" "$folder" --users 200
cd "$folder"
PATH="$folder/venv/bin:$PATH"
batchrec --version
batchrec build-sequences
batchrec train --max-epochs 2
batchrec score --out recs.parquet
batchrec recommend --items movies.csv 101 102 103

"$PYTHON" -m venv "$folder/only-score"
pip="$folder/only-score/bin/python -m pip install --quiet --disable-pip-version-check"
$pip --constraint "$CONSTRAINTS" --requirement "$REQUIREMENTS"
$pip --no-deps "$1"
"$folder/only-score/bin/batchrec" score --out again.parquet --log-format json
cmp recs.parquet again.parquet
