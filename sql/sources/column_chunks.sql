-- One row per column of each row group of a Parquet file: its path in the schema, and the range of its bytes.
-- Parameters: path.
select
    path_in_schema,
    coalesce(least(nullif(dictionary_page_offset, 0), data_page_offset), data_page_offset) as start_byte,
    start_byte + total_compressed_size as end_byte
from parquet_metadata($path)
order by start_byte, end_byte
