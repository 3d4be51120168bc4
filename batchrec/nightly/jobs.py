"""The jobs of a night, as one value that `run` takes."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from batchrec.config import RunConfig, ScoringConfig, SequencesConfig, SimilarConfig, TrainingConfig
from batchrec.errors import ConfigError


@dataclass(frozen=True)
class Jobs:
    """The jobs of a night: their inputs, their options, and where the tables are published.

    similar, similar_out: used if --similar asks for similar items.
    """

    ratings: Sequence[str]
    sequences: SequencesConfig
    training: TrainingConfig
    scoring: ScoringConfig
    out: str
    similar: SimilarConfig = field(default_factory=SimilarConfig)
    similar_out: str = "similar.parquet"

    def files(self, config: RunConfig) -> list[tuple[str, str]]:
        """Return the files that a night reads besides the events: option and path."""
        return [*self.scoring.files.items(), *(self.similar.files.items() if config.similar else ())]

    def lacks(self, config: RunConfig, *, has_embeddings: bool, has_neighbours: bool) -> tuple[str, str] | None:
        """Return an option that needs what a model lacks, and the option of train that left it out; or None."""
        method = self.similar.method if config.similar else None
        if not has_embeddings and (self.scoring.diversity or method == "vectors"):
            return "score --diversity" if self.scoring.diversity else "similar --method vectors", "--max-epochs 0"
        if not has_neighbours and method == "co-occurrence":
            return "similar --method co-occurrence", "--blend none"
        return None

    def __post_init__(self) -> None:
        if self.scoring.part is not None:
            raise ConfigError("--shard: a night scores all users. Use batchrec score --shard and batchrec commit")
