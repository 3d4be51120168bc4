-- One row an item of held_out: its rank in the list of that user in recs, null where it is not in it.
select recs.rank
from held_out
left join recs on held_out.user_id = recs.user_id and held_out.item_id = recs.item_id
