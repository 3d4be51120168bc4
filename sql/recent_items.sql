-- One row an item of the last days of the histories, and its events in them.
with span as (
    select cast(max(list_max(timestamps)) as bigint) as newest
    from read_parquet($path)
),

events as (
    select
        unnest(item_ids) as item_id,
        cast(unnest(timestamps) as bigint) as moment
    from read_parquet($path)
)

select
    events.item_id,
    count(*) as n_events
from events
cross join span
where events.moment > span.newest - 86400 * $days
group by events.item_id
order by events.item_id
