-- One row per item: the number of its events among the newest $share of all events before $until, from the histories at
-- $path.
with events as (
    select
        unnest(item_ids) as item_id,
        unnest(timestamps) as moment
    from read_parquet($path, hive_partitioning = false)
),

newest as (
    select quantile_cont(moment, 1 - $share) as first_moment
    from events
    where moment < $until
)

select
    events.item_id,
    count(*) as n_events
from events
cross join newest
where events.moment >= newest.first_moment and events.moment < $until
group by events.item_id
