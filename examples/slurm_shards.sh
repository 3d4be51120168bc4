#!/bin/bash
# Shards as a Slurm array; the nodes share the folder with sequences.parquet and model/. Publish when all are done:
#
#   array=$(sbatch --parsable slurm_shards.sh 2026-11-24)
#   sbatch --dependency=afterok:$array --wrap ".venv/bin/batchrec commit shards --out recs.parquet"
#
#SBATCH --job-name=recommendations
#SBATCH --array=0-3
#SBATCH --cpus-per-task=8
#SBATCH --mem=8G
#SBATCH --time=03:00:00
# A job that is started again resumes from the checkpoints next to the shard.
#SBATCH --requeue
set -eu
exec .venv/bin/batchrec score --shard "$SLURM_ARRAY_TASK_ID/$SLURM_ARRAY_TASK_COUNT" --run-date "$1" --out shards
