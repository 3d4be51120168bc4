-- One row per column whose values are all null, by the statistics of a Parquet file that has rows.
-- Parameters: paths, a list of Parquet files.
select
    file_name as file,
    path_in_schema as column_name
from parquet_metadata($paths)
group by file_name, path_in_schema
having sum(row_group_num_rows) > 0 and coalesce(bool_and(stats_null_count = row_group_num_rows), false)
