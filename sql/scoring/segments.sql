-- One row per user of the histories at $path who is in a segment, in the view given_segments; ids are compared without
-- the blanks around them.
select
    histories.user_id,
    given_segments.segment
from read_parquet($path, hive_partitioning = false) as histories
inner join given_segments
    on trim(cast(histories.user_id as varchar), $blanks) = cast(given_segments.user_id as varchar)
