#!/bin/sh
# Score on a Ray cluster: sh examples/ray_submit.sh --sequences sequences.parquet --model model --out recs.parquet
# Run it on a node of the cluster, for example as the entry point of `ray job submit`. Every node needs batchrec[ray].
# RAY_ADDRESS names the cluster; auto is the one that this node belongs to.
set -eu
RAY_ADDRESS="${RAY_ADDRESS:-auto}" exec "${BATCHREC:-batchrec}" score --engine ray "$@"
