-- One row: how many histories there are, how long they are and what they span, moments in microseconds UTC.
select
    count(*) as users,
    cast($n_items as bigint) as items,
    cast(sum(n_events) as bigint) as events,
    min(n_events) as shortest_history,
    median(n_events) as median_history,
    avg(n_events) as mean_history,
    quantile_disc(n_events, 0.99) as percentile_99_history,
    max(n_events) as longest_history,
    cast(make_timestamp($oldest) as varchar) as oldest,
    cast(make_timestamp($newest) as varchar) as newest
from histories
