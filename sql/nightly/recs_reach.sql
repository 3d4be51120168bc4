-- One row: what the recommendations at $recs reach: users, users with $k items, different items, the share of all rows
-- that the ten most frequent items make up, null where there are no rows, and how many histories are at $sequences.
-- Users are those of the histories only, where $of_histories.
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
        sum(n_rows) filter (where place <= 10) / sum(n_rows) as top_items_share
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
