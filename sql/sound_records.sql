-- One row per record of the log, but for those that hold rows of others within their quotes.
select all_records.*
from all_records
anti join swallowing
    on
        all_records.file = swallowing.file
        and all_records.user_id is not distinct from swallowing.user_id
        and all_records.item_id is not distinct from swallowing.item_id
        and all_records.event_time is not distinct from swallowing.event_time
        and all_records.rating is not distinct from swallowing.rating
