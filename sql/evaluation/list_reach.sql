-- One row: how many items the recommendations at $path reach, their mean place by popularity, null where there are
-- none, and how many users have a full list.
select
    count(distinct recs.item_id) as n_items,
    avg(training_items.popularity) as mean_popularity_rank,
    count(*) filter (where recs.rank = $k) as users_with_full_list
from read_parquet($path, hive_partitioning = false) as recs
inner join training_items on recs.item_id = training_items.item_id
