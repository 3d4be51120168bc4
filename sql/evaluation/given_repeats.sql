-- One row per user and item, and per user and rank, that several rows of the view given_recs have.
select
    user_id,
    item_id,
    position
from given_recs
group by grouping sets ((user_id, item_id), (user_id, position))
having count(*) > 1
order by user_id, item_id, position
