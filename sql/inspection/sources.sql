-- One row per source of the lists at $path: its number of rows.
select
    source,
    count(*) as n_rows
from read_parquet($path, hive_partitioning = false)
group by source
order by n_rows desc, source asc
