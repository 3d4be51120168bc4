-- One row: the number of users, the lengths of their histories, and the first and last time.
-- Reads histories (n_events), one row per user. Parameters: n_items; oldest, newest, in microseconds UTC.
with lengths as (
    select nullif(n_events, 0) as n_events
    from histories
)

select
    count(*) as users,
    count(*) - count(n_events) as users_without_history,
    cast($n_items as bigint) as items,
    cast(sum(n_events) as bigint) as events,
    min(n_events) as shortest_history,
    median(n_events) as median_history,
    avg(n_events) as mean_history,
    quantile_disc(n_events, 0.99) as percentile_99_history,
    max(n_events) as longest_history,
    cast(make_timestamp($oldest) as varchar) as oldest,
    cast(make_timestamp($newest) as varchar) as newest
from lengths
