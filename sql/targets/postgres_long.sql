-- One row per recommendation of the rows that a publication has copied into Postgres.
-- sqlfluff:dialect:postgres
-- sqlfluff:templater:raw
select recs.*
from pg_temp.batchrec_rows as recs
