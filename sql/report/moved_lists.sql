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

tonight as (
    select
        recs.user_id,
        recs.item_id,
        recs.rank
    from read_parquet($recs, hive_partitioning = false) as recs
    where recs.user_id in (select moved.user_id from moved)
),

before as (
    select
        recs.user_id,
        recs.item_id,
        recs.rank
    from read_parquet($previous, hive_partitioning = false) as recs
    where recs.user_id in (select moved.user_id from moved)
),

came as (
    select
        tonight.user_id,
        list_slice(list(tonight.item_id order by tonight.rank), 1, $k) as item_ids
    from tonight
    anti join before on tonight.user_id = before.user_id and tonight.item_id = before.item_id
    group by tonight.user_id
),

gone as (
    select
        before.user_id,
        list_slice(list(before.item_id order by before.rank), 1, $k) as item_ids
    from before
    anti join tonight on before.user_id = tonight.user_id and before.item_id = tonight.item_id
    group by before.user_id
)

select
    moved.user_id,
    moved.n_tonight,
    moved.n_kept,
    came.item_ids as came,
    coalesce(gone.item_ids, []) as gone
from moved
left join came on moved.user_id = came.user_id
left join gone on moved.user_id = gone.user_id
order by moved.n_kept / moved.n_tonight asc, moved.n_tonight desc, moved.user_id asc
