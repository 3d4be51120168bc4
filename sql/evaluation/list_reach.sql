-- One row: the number of distinct items in the recommendations at $path, their mean rank by popularity (null without
-- recommendations), and the number of users with a full list.
select
    count(distinct recs.item_id) as n_items,
    avg(training_items.popularity) as mean_popularity_rank,
    count(*) filter (where recs.rank = $k) as users_with_full_list
from read_parquet($path, hive_partitioning = false) as recs
inner join training_items on recs.item_id = training_items.item_id
