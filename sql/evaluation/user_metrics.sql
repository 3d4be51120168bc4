-- One row per tested user, in the order of ids: the metrics of the user's list in the recommendations at $path. Each
-- relevant item gains 1 / log2(rank + 1), and the ideal list begins with all relevant items, up to k. A user without a
-- list has zeros.
with relevant as (
    select
        user_id,
        count(*) as n_items
    from test_items
    group by user_id
),

best as (
    select
        user_id,
        n_items,
        list_sum([1 / log2(place + 1) for place in range(1, least($k, n_items) + 1)]) as gain
    from relevant
),

hits as (
    select
        recs.user_id,
        count(*) as n_hits,
        min(recs.rank) as first_rank,
        sum(1 / log2(recs.rank + 1) order by recs.rank) as gain
    from read_parquet($path, hive_partitioning = false) as recs
    semi join test_items on recs.user_id = test_items.user_id and recs.item_id = test_items.item_id
    where recs.rank <= $k
    group by recs.user_id
)

select
    coalesce(hits.gain / best.gain, 0) as ndcg,
    cast(hits.user_id is not null as double) as hit_rate,
    coalesce(hits.n_hits / best.n_items, 0) as recall,
    coalesce(1 / hits.first_rank, 0) as mrr
from best
left join hits on best.user_id = hits.user_id
order by best.user_id
