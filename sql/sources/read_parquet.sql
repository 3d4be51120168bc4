-- One row per row of the Parquet files, with the file it comes from. Bytes without a mark are text, as most tools that
-- write none mean it.
select *
from read_parquet($paths, filename = 'batchrec_file', hive_partitioning = false, binary_as_string = true)
