-- One row: the mean share of a user's recommendations at $recs that stand in those at $previous too, over the users of
-- both; null where there are none.
with tonight as (
    select
        user_id,
        list(item_id) as item_ids
    from read_parquet($recs)
    group by user_id
),

last_night as (
    select
        user_id,
        list(item_id) as item_ids
    from read_parquet($previous)
    group by user_id
)

select avg(len(list_intersect(tonight.item_ids, last_night.item_ids)) / len(tonight.item_ids)) as overlap
from tonight
inner join last_night on tonight.user_id = last_night.user_id
