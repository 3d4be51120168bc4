-- One row: the mean share of a user's recommendations at $recs that are also in the user's list at $previous, over the
-- users in both tables; 0 if there are none. Ids are compared as text without surrounding blanks.
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
