-- One row: how many numbers of a kind of time are dates in a format, as 20231215 is in %Y%m%d; 2024.5 is not.
-- 9999 is a year without end.
-- Reads loaded_events. Parameters: time_kind; tick, microseconds per unit of the number; format.
with dates as (
    select year(try_strptime(cast(cast(moment // $tick as bigint) as varchar), $format)) as date_year
    from loaded_events
    where
        time_kind = $time_kind
        and moment is not null
        and moment % $tick = 0
)

select count(*) as n_dates
from dates
where date_year between 1900 and 2100 or date_year = 9999
