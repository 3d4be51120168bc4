"""Verdicts on the model and on each given table, one line per pair of methods."""

from collections.abc import Sequence

from batchrec.evaluation.report import MethodPair
from batchrec.model.metrics import decimals


def verdicts(pairs: Sequence[MethodPair], contenders: Sequence[str], best_baseline: str, k: int) -> list[str]:
    """Compare the contenders, the model and the given tables, with the best baseline, then with each other."""
    others = {best_baseline, *contenders}
    chosen = [pair for pair in pairs if pair.method in contenders and pair.other in others]
    return [_verdict(pair, k) for pair in sorted(chosen, key=lambda pair: pair.other != best_baseline)]


def _verdict(pair: MethodPair, k: int) -> str:
    if pair.ndcg_gain_low > 0:
        verdict = "better"
    elif pair.ndcg_gain_high < 0:
        verdict = "worse"
    else:
        verdict = "no difference that these users can show"
    low, high = _signed(pair.ndcg_gain_low), _signed(pair.ndcg_gain_high)
    return f"{pair.method} against {pair.other}: NDCG@{k} {_signed(pair.ndcg_gain)} [{low}, {high}]: {verdict}"


def _signed(value: float) -> str:
    return f"{'-' if value < 0 else '+'}{decimals(abs(value))}"
