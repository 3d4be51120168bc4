"""One of several shards of the users, for tasks that score on their own."""

import re
from dataclasses import dataclass

from batchrec.errors import ConfigError

MAX_SHARDS = 10_000


@dataclass(frozen=True)
class Shard:
    """Shard `index`, from 0, of n_shards."""

    index: int
    n_shards: int

    @classmethod
    def parse(cls, text: str) -> "Shard":
        """Parse a text like 0/4. Raises ConfigError for anything else, and for an index that is too large."""
        match = re.fullmatch(r"([0-9]{1,5})/([0-9]{1,5})", text)
        shard = cls(int(match[1]), int(match[2])) if match else cls(0, 0)
        if not 0 <= shard.index < shard.n_shards <= MAX_SHARDS:
            raise ConfigError(
                f"--shard {text}: expected I/N like 0/4, with I from 0 to N - 1 and N up to {MAX_SHARDS:,}"
            )
        return shard

    def __str__(self) -> str:
        return f"{self.index}/{self.n_shards}"

    @property
    def file_name(self) -> str:
        """The name of the shard's file in the folder of the shards."""
        return f"shard-{self.index}-of-{self.n_shards}.parquet"
