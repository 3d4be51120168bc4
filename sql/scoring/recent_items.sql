-- One row an item of the last days of the histories, and its events in them, segment null; and one a segment and item
-- of its users' events in those days. The last day is that of the newest event before $until: one may be ahead of its
-- time.
with events as (
    select
        user_id,
        unnest(item_ids) as item_id,
        cast(unnest(timestamps) as bigint) as moment
    from read_parquet($path, hive_partitioning = false)
),

span as (
    select max(moment) filter (where moment < $until) as newest
    from events
)

select
    segments.segment,
    events.item_id,
    count(*) as n_events
from events
left join segments on events.user_id = segments.user_id
cross join span
where events.moment > span.newest - 86400 * $days and events.moment < $until
group by grouping sets ((events.item_id), (segments.segment, events.item_id))
having grouping(segments.segment) = 1 or segments.segment is not null
order by segments.segment, events.item_id
