-- One row per item of the histories at $path in the last $days days, with segment null and the sum of its events'
-- weights; and one row per segment, in the table segments, and item of its users' events in those days. The last day is
-- that of the newest event before $until: later events are errors of a clock. The column weights may be missing: then
-- every event weighs 1.
with histories as (
    select *
    from read_parquet($path, hive_partitioning = false)
    union all by name
    select cast(null as double[]) as weights
    where false
),

events as (
    select
        user_id,
        unnest(item_ids) as item_id,
        cast(unnest(timestamps) as bigint) as moment,
        coalesce(unnest(weights), 1) as weight
    from histories
),

span as (
    select max(moment) filter (where moment < $until) as newest
    from events
)

select
    segments.segment,
    events.item_id,
    fsum(events.weight) as popularity
from events
left join segments on events.user_id = segments.user_id
cross join span
where events.moment > span.newest - 86400 * $days and events.moment < $until
group by grouping sets ((events.item_id), (segments.segment, events.item_id))
having grouping(segments.segment) = 1 or segments.segment is not null
order by segments.segment, events.item_id
