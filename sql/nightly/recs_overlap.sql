-- One row: the mean share of a user's recommendations at $recs that stand in those at $previous too, over the users of
-- both; 0 where there are none. Ids are compared as text without the blanks around it.
with tonight as (
    select
        trim(cast(user_id as varchar), $blanks) as user_id,
        list(trim(cast(item_id as varchar), $blanks)) as item_ids
    from read_parquet($recs, hive_partitioning = false)
    group by trim(cast(user_id as varchar), $blanks)
),

last_night as (
    select
        trim(cast(user_id as varchar), $blanks) as user_id,
        list(trim(cast(item_id as varchar), $blanks)) as item_ids
    from read_parquet($previous, hive_partitioning = false)
    group by trim(cast(user_id as varchar), $blanks)
)

select coalesce(avg(len(list_intersect(tonight.item_ids, last_night.item_ids)) / len(tonight.item_ids)), 0) as overlap
from tonight
inner join last_night on tonight.user_id = last_night.user_id
