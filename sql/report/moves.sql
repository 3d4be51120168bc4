-- One row per user of the recommendations at $recs or $previous: the lengths of both lists, and how many items are in
-- both.
with tonight as (
    select
        user_id,
        item_id
    from read_parquet($recs, hive_partitioning = false)
),

before as (
    select
        user_id,
        item_id
    from read_parquet($previous, hive_partitioning = false)
)

select
    coalesce(tonight.user_id, before.user_id) as user_id,
    count(tonight.item_id) as n_tonight,
    count(before.item_id) as n_before,
    count(*) filter (where tonight.item_id is not null and before.item_id is not null) as n_kept
from tonight
full outer join before on tonight.user_id = before.user_id and tonight.item_id = before.item_id
group by coalesce(tonight.user_id, before.user_id)
