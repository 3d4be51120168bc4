-- One row per pair of a scored user and a pin of the view pins. The scored users are those of the view listed_users if
-- $is_listed, otherwise those of the histories at $sequences and of the view user_segments.
with users as (
    select trim(cast(user_id as varchar), $blanks) as user_id
    from read_parquet($sequences, hive_partitioning = false)
    where not $is_listed
    union
    select user_id
    from user_segments
    where not $is_listed
    union
    select user_id
    from listed_users
)

select
    users.user_id,
    pins.item_id,
    pins.position
from users
cross join pins
