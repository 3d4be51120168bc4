-- One row a row of the Parquet files, with the file it comes from.
select *
from read_parquet($paths, filename = 'batchrec_file', hive_partitioning = false)
