-- One row: the time, in Unix seconds, that splits the log for validation; null if no window before the log's end fits.
-- A window holds at most 20 % of the events before $until, and before it somebody has two items. A user qualifies with
-- an event before it and, in it, an item that is new to them, or any item if $repeat_items; not with a last event from
-- $until on. The shortest window in which 200 users qualify is taken; without one, the longest if 30 qualify.
-- tests/tables/test_validation_cut.py compares this with plain loops.
with events as (
    select
        user_id,
        unnest(item_ids) as item_id,
        unnest(timestamps) as moment
    from read_parquet($path, hive_partitioning = false)
),

log_end as (
    select
        max(moment) + 1 as ends,
        count(*) as n_events
    from events
    where moment < $until
),

lengths as (select unnest([7, 14, 30, 60, 120, 240, 480, 960]) as days),

windows as (
    select
        lengths.days,
        log_end.ends - lengths.days * 86400 as cut,
        0.2 * log_end.n_events as most_events
    from lengths
    cross join log_end
),

taken as (
    select
        user_id,
        min(moment) as first_moment,
        max(moment) as last_moment
    from events
    group by user_id, item_id
),

users as (
    select
        max(last_moment) < $until as may_qualify,
        min(first_moment) as oldest,
        min(first_moment, 2)[2] as second_oldest,
        max(case when $repeat_items then last_moment else first_moment end) as newest
    from taken
    group by user_id
),

qualified as (
    select
        windows.days,
        count_if(users.may_qualify and users.oldest < windows.cut and users.newest >= windows.cut) as n_users,
        count_if(users.second_oldest < windows.cut) as n_to_learn_from
    from windows
    cross join users
    group by windows.days
),

-- Days from an event to the log's end: an event is in the windows of more days.
ages as (
    select
        (log_end.ends - events.moment - 1) // 86400 as days,
        count(*) as n_events
    from events
    cross join log_end
    where events.moment < $until
    group by all
),

later as (
    select
        windows.days,
        sum(ages.n_events) as n_events
    from windows
    inner join ages on windows.days > ages.days
    group by windows.days
),

fitting as (
    select
        windows.cut,
        qualified.n_users
    from windows
    inner join qualified on windows.days = qualified.days
    inner join later on windows.days = later.days
    where later.n_events <= windows.most_events and qualified.n_to_learn_from > 0
)

select
    coalesce(
        max(cut) filter (where n_users >= 200),
        case when arg_min(n_users, cut) >= 30 then min(cut) end
    ) as cut
from fitting
