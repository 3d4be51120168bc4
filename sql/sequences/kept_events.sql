-- One row: the number of events that no filter has left out.
-- Reads history_events.
select count(*) as n_events
from history_events
where not left_out
