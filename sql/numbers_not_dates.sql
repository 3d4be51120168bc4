-- One row: how many numbers are not dates written in a format, as 20231215 is in %Y%m%d. tick: microseconds of one.
select count(*) as n_events
from loaded_events
where moment is not null and try_strptime(cast(cast(moment // $tick as bigint) as varchar), $format) is null
