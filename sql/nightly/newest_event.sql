-- One row: the newest moment before $until in the histories at $path, and the newest of all, in seconds since 1970 UTC;
-- null where there is none.
with events as (
    select unnest(timestamps) as moment
    from read_parquet($path, hive_partitioning = false)
)

select
    max(moment) filter (where moment < $until) as newest_before,
    max(moment) as newest
from events
