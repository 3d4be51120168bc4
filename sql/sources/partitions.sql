-- One row per row of a source, with the columns that are written in the paths of its files, as in dt=2024-01-01/.
-- Parameters: source, a view with batchrec_file; pattern_0 to pattern_5, a regular expression per column, empty for
-- none; null_word, the text of a null in a path.
select
    *,
    nullif(url_decode(regexp_extract(batchrec_file, $pattern_0, 1)), $null_word) as batchrec_partition_0,
    nullif(url_decode(regexp_extract(batchrec_file, $pattern_1, 1)), $null_word) as batchrec_partition_1,
    nullif(url_decode(regexp_extract(batchrec_file, $pattern_2, 1)), $null_word) as batchrec_partition_2,
    nullif(url_decode(regexp_extract(batchrec_file, $pattern_3, 1)), $null_word) as batchrec_partition_3,
    nullif(url_decode(regexp_extract(batchrec_file, $pattern_4, 1)), $null_word) as batchrec_partition_4,
    nullif(url_decode(regexp_extract(batchrec_file, $pattern_5, 1)), $null_word) as batchrec_partition_5
from query_table($source)
