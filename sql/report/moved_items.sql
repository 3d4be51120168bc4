-- One row: how many items are in the lists at $recs and at $previous, only in those at $recs, and only in those at
-- $previous.
with tonight as (
    select distinct item_id
    from read_parquet($recs, hive_partitioning = false)
),

before as (
    select distinct item_id
    from read_parquet($previous, hive_partitioning = false)
)

select
    count(*) filter (where tonight.item_id is not null and before.item_id is not null) as items_in_both,
    count(*) filter (where before.item_id is null) as items_in,
    count(*) filter (where tonight.item_id is null) as items_out
from tonight
full outer join before on tonight.item_id = before.item_id
