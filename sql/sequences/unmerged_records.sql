-- One row per record of the log, without the records in merged_records. Of equal records, as many are removed as
-- merged_records has.
-- Reads all_records and merged_records, both (file, user_id, item_id, event_time, rating, event_type,
-- event_value).
with counted as (
    select
        file,
        user_id,
        item_id,
        event_time,
        rating,
        event_type,
        event_value,
        count(*) as n_records
    from merged_records
    group by all
),

numbered as (
    select
        *,
        row_number() over (
            partition by file, user_id, item_id, event_time, rating, event_type, event_value
        ) as occurrence
    from all_records
)

select
    numbered.user_id,
    numbered.item_id,
    numbered.event_time,
    numbered.rating,
    numbered.event_type,
    numbered.event_value,
    numbered.file
from numbered
left join counted
    on
        numbered.file = counted.file
        and numbered.user_id is not distinct from counted.user_id
        and numbered.item_id is not distinct from counted.item_id
        and numbered.event_time is not distinct from counted.event_time
        and numbered.rating is not distinct from counted.rating
        and numbered.event_type is not distinct from counted.event_type
        and numbered.event_value is not distinct from counted.event_value
where numbered.occurrence > coalesce(counted.n_records, 0)
