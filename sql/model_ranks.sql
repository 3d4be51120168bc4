-- One row an item of held_out: its rank in the list of that user in recs, null where it is not in it. As text: the model
-- may be of a log in which items were integers.
select recs.rank
from held_out
left join recs
    on held_out.user_id = recs.user_id and cast(held_out.item_id as varchar) = cast(recs.item_id as varchar)
