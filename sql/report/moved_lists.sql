-- One row per user of the $n_users in both tables of moves whose lists keep the smallest share of items: the length of
-- the list at $recs, how many of its items were in the list at $previous, and the first $k items that came and that are
-- gone.
with moved as (
    select
        user_id,
        n_tonight,
        n_kept
    from moves
    where n_tonight > 0 and n_before > 0 and n_kept < n_tonight
    order by n_kept / n_tonight asc, n_tonight desc, user_id asc
    limit $n_users
),

listed as (
    select
        user_id,
        item_id,
        rank as rank_tonight,
        null as rank_before
    from read_parquet($recs, hive_partitioning = false)
    union all
    select
        user_id,
        item_id,
        null as rank_tonight,
        rank as rank_before
    from read_parquet($previous, hive_partitioning = false)
),

items as (
    select
        listed.user_id,
        listed.item_id,
        max(listed.rank_tonight) as rank_tonight,
        max(listed.rank_before) as rank_before
    from listed
    where listed.user_id in (select moved.user_id from moved)
    group by listed.user_id, listed.item_id
),

changed as (
    select
        user_id,
        list(item_id order by rank_tonight) filter (where rank_before is null) as came,
        list(item_id order by rank_before) filter (where rank_tonight is null) as gone
    from items
    group by user_id
)

select
    moved.user_id,
    moved.n_tonight,
    moved.n_kept,
    list_slice(changed.came, 1, $k) as came,
    coalesce(list_slice(changed.gone, 1, $k), []) as gone
from moved
inner join changed on moved.user_id = changed.user_id
order by moved.n_kept / moved.n_tonight asc, moved.n_tonight desc, moved.user_id asc
