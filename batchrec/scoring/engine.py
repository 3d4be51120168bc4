"""The interface of engines: other places than this process's threads where chunks of users are scored."""

from collections.abc import Generator
from typing import Protocol, TypeAlias

from batchrec.scoring.inputs import ScoringInputs
from batchrec.scoring.scorer import ScoredChunk

ScoredChunks: TypeAlias = Generator[ScoredChunk, None, None]


class Engine(Protocol):
    """A cluster whose workers score. engines/ has the engines."""

    def score(self, inputs: ScoringInputs) -> ScoredChunks:
        """Yield the chunks of the inputs, scored, in their order. Closing the generator stops the scoring.

        Raises ConfigError if the engine's package is not installed, EngineError if its cluster cannot be reached or
        fails, and the errors of scoring.
        """
