-- One row: how many events no filter has left out.
select count(*) as n_events
from history_events
where not left_out
