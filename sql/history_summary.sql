-- One row: how many histories there are, how long they are and what they span.
with histories as (
    select
        count(*) as n_events,
        min(moment) as oldest,
        max(moment) as newest
    from history_events
    group by user_id
),

items as (
    select count(distinct item_id) as n_items
    from history_events
)

select
    count(*) as users,
    any_value(items.n_items) as items,
    cast(coalesce(sum(histories.n_events), 0) as bigint) as events,
    min(histories.n_events) as shortest_history,
    median(histories.n_events) as median_history,
    avg(histories.n_events) as mean_history,
    quantile_disc(histories.n_events, 0.99) as percentile_99_history,
    max(histories.n_events) as longest_history,
    cast(make_timestamp(min(histories.oldest)) as varchar) as oldest,
    cast(make_timestamp(max(histories.newest)) as varchar) as newest
from histories
cross join items
