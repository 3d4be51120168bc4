-- One row per user of the rows that a publication has copied into Postgres, with the recommendations as jsonb.
-- sqlfluff:dialect:postgres
-- sqlfluff:templater:raw
select
    recs.user_id,
    recs.history_digest,
    recs.model_id,
    jsonb_agg(
        to_jsonb(recs) - array['user_id', 'history_digest', 'model_id', 'run_date']
        order by recs.rank
    ) as recommendations,
    recs.run_date
from pg_temp.batchrec_rows as recs
group by recs.user_id, recs.history_digest, recs.model_id, recs.run_date
