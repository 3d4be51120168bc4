-- One row per user whose later items are held out: a number from 0, the history before them, and each of these once.
-- The users are those that training holds out. Later items are those from $cut on, or the last one if $cut is null, if
-- they are new to the user or $keep_seen. Of the users whose last event is older than $until and who have such items,
-- the first $max_users by a hash are taken, at most half. tests/nightly/test_held_out.py compares this with
-- training/holdout.py and training/holdout_by_time.py.
with histories as (
    select
        user_id,
        item_ids,
        timestamps,
        case
            when $cut is null then len(item_ids) - 1
            else len(list_filter(timestamps, lambda moment: moment < $cut))
        end as n_before
    from read_parquet($path, hive_partitioning = false)
    where timestamps[-1] < $until
),

split as (
    select
        user_id,
        item_ids[:n_before] as before,
        timestamps[:n_before] as times_before,
        list_distinct(item_ids[n_before + 1:]) as after
    from histories
    where n_before > 0
),

later as (
    select
        user_id,
        before,
        times_before,
        case
            when $keep_seen then after else list_filter(after, lambda item: not list_contains(before, item))
        end as later_items
    from split
),

qualified as (
    select
        user_id,
        before,
        times_before,
        later_items,
        row_number() over (order by hash(user_id, $seed), user_id) as place,
        count(*) over () as n_users
    from later
    where len(later_items) > 0
)

select
    place - 1 as number,
    user_id,
    before as item_ids,
    times_before as timestamps,
    later_items
from qualified
where place <= greatest(1, least($max_users, n_users // 2))
