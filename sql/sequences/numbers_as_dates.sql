-- One row: how many numbers of a kind of time are dates in a format, as 20231215 is in %Y%m%d. The year 9999 is valid.
-- Reads loaded_events. Parameters: time_kind; tick, microseconds per unit of the number; format.
select count(*) as n_dates
from loaded_events
where
    time_kind = $time_kind
    and moment is not null
    and year(try_strptime(cast(cast(moment // $tick as bigint) as varchar), $format)) between 1900 and 9999
