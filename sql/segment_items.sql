-- One row a segment and an item of the last days of its users' histories, and the events in them.
with span as (
    select cast(max(list_max(timestamps)) as bigint) as newest
    from read_parquet($path)
),

events as (
    select
        user_id,
        unnest(item_ids) as item_id,
        cast(unnest(timestamps) as bigint) as moment
    from read_parquet($path)
)

select
    segments.segment,
    events.item_id,
    count(*) as n_events
from events
inner join segments on events.user_id = segments.user_id
cross join span
where events.moment > span.newest - 86400 * $days
group by segments.segment, events.item_id
order by segments.segment, events.item_id
