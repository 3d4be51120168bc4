-- One row: the mean share of a user's recommendations at $recs that stand in those at $previous too, over the users of
-- both; 0 where there are none. Ids are compared as text: a log whose integers have become text is another log.
with tonight as (
    select
        cast(user_id as varchar) as user_id,
        list(cast(item_id as varchar)) as item_ids
    from read_parquet($recs, hive_partitioning = false)
    group by user_id
),

last_night as (
    select
        cast(user_id as varchar) as user_id,
        list(cast(item_id as varchar)) as item_ids
    from read_parquet($previous, hive_partitioning = false)
    group by user_id
)

select coalesce(avg(len(list_intersect(tonight.item_ids, last_night.item_ids)) / len(tonight.item_ids)), 0) as overlap
from tonight
inner join last_night on tonight.user_id = last_night.user_id
