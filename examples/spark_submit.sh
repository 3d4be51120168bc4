#!/bin/sh
# Run a command of batchrec on a Spark cluster:
#   sh examples/spark_submit.sh build-sequences --ratings /shared/log --out sequences.parquet
#   sh examples/spark_submit.sh score --sequences sequences.parquet --model model --out recs.parquet
# Every node needs batchrec[spark], at the same path as PYSPARK_PYTHON. The driver runs here, next to the model and the
# sequences. SPARK_OPTIONS holds options of spark-submit, such as --num-executors 20 --executor-cores 4.
set -eu
command="$1"
shift
# shellcheck disable=SC2086 # the options are several words
exec "${SPARK_SUBMIT:-spark-submit}" --master "${MASTER:-yarn}" --deploy-mode client ${SPARK_OPTIONS:-} \
    "$(dirname "$0")/spark_batchrec.py" "$command" --engine spark "$@"
