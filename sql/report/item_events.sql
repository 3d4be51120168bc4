-- One row per item of the histories at $sequences: its number of events, and its rank by them, 1 for the most frequent.
with events as (
    select unnest(item_ids) as item_id
    from read_parquet($sequences, hive_partitioning = false)
)

select
    item_id,
    count(*) as n_events,
    row_number() over (order by count(*) desc, item_id asc) as popularity_rank
from events
group by item_id
