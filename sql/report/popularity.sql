-- One row per band of popularity ranks in item_events, two bands per power of ten: its ranks, and its shares of all
-- events and of the recommendations at $recs (null without any).
with recommended as (
    select
        item_id,
        count(*) as n_recs
    from read_parquet($recs, hive_partitioning = false)
    group by item_id
),

banded as (
    select
        item_events.n_events,
        item_events.popularity_rank,
        coalesce(recommended.n_recs, 0) as n_recs,
        floor(2 * log10(item_events.popularity_rank)) as band
    from item_events
    left join recommended on item_events.item_id = recommended.item_id
)

select
    min(popularity_rank) as first_rank,
    max(popularity_rank) as last_rank,
    count(*) filter (where n_recs > 0) as items_recommended,
    sum(n_events) / sum(sum(n_events)) over () as events_share,
    sum(n_recs) / (select sum(recommended.n_recs) from recommended) as recs_share
from banded
group by band
order by band
