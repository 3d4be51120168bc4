-- One row: what the recommendations at $recs reach: users, users with $k items, different items, and the share of all
-- rows that the ten most frequent items make up, null where there are no rows.
with users as (
    select
        count(distinct user_id) as n_users,
        count(*) filter (where rank = $k) as n_full
    from read_parquet($recs)
),

items as (
    select
        count(*) as n_rows,
        row_number() over (order by count(*) desc) as place
    from read_parquet($recs)
    group by item_id
)

select
    any_value(users.n_users) as users,
    any_value(users.n_full) as users_with_full_list,
    count(*) as items,
    sum(items.n_rows) filter (where items.place <= 10) / sum(items.n_rows) as top_items_share
from items
cross join users
