-- One row per row of the Parquet files, with its file. Bytes without a logical type are read as text, because most
-- tools that write such columns mean text.
-- Parameters: paths.
select *
from read_parquet($paths, filename = 'batchrec_file', hive_partitioning = false, binary_as_string = true)
