-- One row per user and item, and per user and rank, that several rows of recommendations have.
-- Parameter: recs, a view with user_id, item_id and position, the rank.
select
    user_id,
    item_id,
    position
from query_table($recs)
group by grouping sets ((user_id, item_id), (user_id, position))
having count(*) > 1
order by user_id, item_id, position
