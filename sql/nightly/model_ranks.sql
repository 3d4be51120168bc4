-- One row per user in held_out: the rank of the held-out item in the user's list in recs; null if it is not listed.
select recs.rank
from held_out
left join recs on held_out.user_id = recs.user_id and held_out.item_id = recs.item_id
