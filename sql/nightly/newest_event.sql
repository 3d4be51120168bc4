-- One row: the time of the newest event before $until in the histories at $path, and of the newest event of all, in
-- seconds since 1970 UTC; null if there is no such event.
with events as (
    select unnest(timestamps) as moment
    from read_parquet($path, hive_partitioning = false)
)

select
    max(moment) filter (where moment < $until) as newest_before,
    max(moment) as newest
from events
