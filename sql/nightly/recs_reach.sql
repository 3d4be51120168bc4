-- One row: the reach of the recommendations at $recs: the number of users, of users with $k items and of distinct
-- items, the share of the ten most frequent items in all rows (0 without rows), and the number of histories at
-- $sequences.
-- If $of_histories, only users with a history count.
with users as (
    select
        count(distinct user_id) as n_users,
        count(*) filter (where rank = $k) as n_full
    from read_parquet($recs, hive_partitioning = false)
    where
        not $of_histories
        or user_id in (
            select histories.user_id from read_parquet($sequences, hive_partitioning = false) as histories
        )
),

histories as (
    select count(*) as n_histories
    from read_parquet($sequences, hive_partitioning = false)
),

items as (
    select
        count(*) as n_rows,
        row_number() over (order by count(*) desc) as place
    from read_parquet($recs, hive_partitioning = false)
    group by item_id
),

reached as (
    select
        count(*) as n_items,
        coalesce(sum(n_rows) filter (where place <= 10) / sum(n_rows), 0) as top_items_share
    from items
)

select
    users.n_users as users,
    users.n_full as users_with_full_list,
    reached.n_items as items,
    reached.top_items_share,
    histories.n_histories as histories
from users
cross join reached
cross join histories
