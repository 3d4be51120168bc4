-- Macro: the shard of a user, from 0 to n_shards - 1: the first 8 hexadecimal digits of the MD5 of the id's text in
-- UTF-8, without blanks around it, modulo n_shards.
create or replace temp macro shard_of(user_id, blanks, n_shards) as
cast('0x' || left(md5(trim(cast(user_id as varchar), blanks)), 8) as ubigint) % n_shards;
