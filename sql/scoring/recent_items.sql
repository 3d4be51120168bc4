-- One row per item of the histories at $path in the last $days days, with segment null and its number of events; and
-- one row per segment, in the table segments, and item of its users' events in those days. The last day is that of the
-- newest event before $until: later events are errors of a clock.
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
