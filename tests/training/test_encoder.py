import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from batchrec.config import Objective
from batchrec.tables.schemas import PAD
from batchrec.training.encoder import Encoder
from tests.support.models import small_encoder, tokens_of


def states_of(encoder: Encoder, tokens: Tensor, places: Tensor | None = None) -> Tensor:
    with torch.inference_mode():
        states: Tensor = encoder(tokens, places)
    return states


def independent_states(encoder: Encoder, tokens: Tensor) -> Tensor:
    """The same encoder built from torch's own layers, computing every place."""
    weights, shape = encoder.state_dict(), encoder.shape
    items, positions = weights["item_embeddings.weight"], weights["position_embeddings.weight"]
    size, length = shape.hidden_size, tokens.shape[1]
    hidden = torch.zeros(*tokens.shape, size)
    for row, line in enumerate(tokens.tolist()):
        n_items = sum(token != PAD for token in line)
        for place, token in enumerate(line[:n_items]):
            hidden[row, place] = items[token] + positions[n_items - 1 - place]
    is_later = torch.ones(length, length).triu(1).bool() if shape.objective == "causal" else None
    for number in range(shape.n_layers):
        layer = nn.TransformerEncoderLayer(
            size, shape.n_heads, 4 * size, dropout=0.0, activation="gelu", norm_first=True, batch_first=True
        ).eval()
        own = {n.removeprefix(f"blocks.{number}."): w for n, w in weights.items() if n.startswith(f"blocks.{number}.")}
        for kind in ("weight", "bias"):
            own[f"self_attn.in_proj_{kind}"] = torch.cat([own.pop(f"query.{kind}"), own.pop(f"key_value.{kind}")])
        layer.load_state_dict({torchs_name(name): weight for name, weight in own.items()})
        hidden = layer(hidden, src_mask=is_later, src_key_padding_mask=tokens == PAD)
    return nn.functional.layer_norm(hidden, (size,), weights["norm.weight"], weights["norm.bias"])


def torchs_name(name: str) -> str:
    part, _, kind = name.rpartition(".")
    names = {
        "attention_output": "self_attn.out_proj",
        "feed_forward.0": "linear1",
        "feed_forward.2": "linear2",
        "attention_norm": "norm1",
        "feed_forward_norm": "norm2",
    }
    return f"{names.get(part, part)}.{kind}"


indexes = st.integers(2, 11)
ROWS = ([5, 6, 7, 8, 9, 10], [3], [4, 4, 11], [2, 9, 2, 1])


@pytest.mark.parametrize(("n_layers", "n_heads"), [(1, 1), (2, 2), (3, 4)])
def test_the_encoder_equals_torchs_own_layers(n_layers: int, n_heads: int, objective: Objective) -> None:
    encoder = small_encoder(n_layers=n_layers, n_heads=n_heads, objective=objective)
    tokens = tokens_of(*ROWS)
    states = states_of(encoder, tokens)
    with torch.no_grad():
        expected = independent_states(encoder, tokens)
    inside = tokens != PAD
    assert torch.allclose(states[inside], expected[inside], atol=1e-5)


def test_training_mode_without_dropout_computes_the_same(objective: Objective) -> None:
    encoder = small_encoder(objective=objective, dropout=0.0)
    tokens = tokens_of(*ROWS)
    in_evaluation = states_of(encoder, tokens)
    assert torch.allclose(states_of(encoder.train(), tokens), in_evaluation, atol=1e-5)


def test_dropout_acts_only_in_training(objective: Objective) -> None:
    encoder = small_encoder(objective=objective, dropout=0.5)
    tokens = tokens_of(*ROWS)
    assert torch.equal(states_of(encoder, tokens), states_of(encoder, tokens))
    encoder.train()
    assert not torch.allclose(states_of(encoder, tokens), states_of(encoder, tokens))


def test_pad_is_never_attended_to(objective: Objective) -> None:
    encoder = small_encoder(objective=objective)
    alone = states_of(encoder, tokens_of([4, 4, 11]))
    padded = states_of(encoder, tokens_of([4, 4, 11], width=30))
    assert torch.allclose(padded[:, :3], alone, atol=1e-5)


def test_the_embedding_of_pad_has_no_effect(objective: Objective) -> None:
    encoder = small_encoder(objective=objective)
    tokens = tokens_of(*ROWS)
    before = states_of(encoder, tokens)
    with torch.no_grad():
        encoder.item_embeddings.weight[PAD] = 100.0
    after = states_of(encoder, tokens)
    assert torch.allclose(after[tokens != PAD], before[tokens != PAD], atol=1e-5)


def test_other_rows_of_a_batch_change_nothing(objective: Objective) -> None:
    encoder = small_encoder(objective=objective)
    together = states_of(encoder, tokens_of(*ROWS))
    for row, states in zip(ROWS, together, strict=True):
        assert torch.allclose(states[: len(row)], states_of(encoder, tokens_of(row))[0], atol=1e-5)


def test_masked_places_see_later_items() -> None:
    encoder = small_encoder(objective="masked")
    one, other = states_of(encoder, tokens_of([5, 6, 7])), states_of(encoder, tokens_of([5, 6, 8]))
    assert not torch.allclose(one[0, 0], other[0, 0], atol=1e-3)


@given(st.lists(indexes, min_size=2, max_size=6), st.data())
def test_causal_places_see_no_later_item(history: list[int], data: st.DataObject) -> None:
    encoder = small_encoder(objective="causal")
    place = data.draw(st.integers(1, len(history) - 1))
    changed = [*history[:place], *data.draw(st.lists(indexes, min_size=1, max_size=1)), *history[place + 1 :]]
    one, other = states_of(encoder, tokens_of(history)), states_of(encoder, tokens_of(changed))
    assert torch.equal(one[0, :place], other[0, :place])
    assert changed == history or not torch.allclose(one[0, place], other[0, place], atol=1e-3)


def test_positions_count_from_the_newest(objective: Objective) -> None:
    encoder = small_encoder(objective=objective)
    before = states_of(encoder, tokens_of([5, 6], [7, 8, 9]))
    with torch.no_grad():
        encoder.position_embeddings.weight[2] *= -1
    after = states_of(encoder, tokens_of([5, 6], [7, 8, 9]))
    assert torch.allclose(after[0, :2], before[0, :2], atol=1e-5)
    assert not torch.allclose(after[1], before[1], atol=1e-3)


def test_order_matters(objective: Objective) -> None:
    encoder = small_encoder(objective=objective)
    one = states_of(encoder, tokens_of([5, 6, 7]))[0, -1]
    other = states_of(encoder, tokens_of([6, 5, 7]))[0, -1]
    assert not torch.allclose(one, other, atol=1e-3)


@pytest.mark.parametrize("n_layers", [1, 2])
@pytest.mark.parametrize("places", [[[5, 0], [0, 0], [2, 1], [3, 3]], [[5], [0], [2], [3]]])
def test_states_at_places_equal_those_of_all_places(
    places: list[list[int]], n_layers: int, objective: Objective
) -> None:
    encoder = small_encoder(n_layers=n_layers, objective=objective)
    tokens = tokens_of(*ROWS)
    chosen, everywhere = states_of(encoder, tokens, torch.tensor(places)), states_of(encoder, tokens)
    for row in range(len(ROWS)):
        assert torch.allclose(chosen[row], everywhere[row, places[row]], atol=1e-5)


def test_the_last_place_of_each_row_is_scored(objective: Objective) -> None:
    encoder = small_encoder(objective=objective)
    with torch.inference_mode():
        scores = encoder.score_last_place(tokens_of(*ROWS))
        for row, row_scores in zip(ROWS, scores, strict=True):
            alone = encoder(tokens_of(row))[0, -1] @ encoder.item_embeddings.weight.T + encoder.item_biases
            assert torch.allclose(row_scores, alone, atol=1e-5)


def test_items_are_scored_by_their_own_embeddings() -> None:
    encoder = small_encoder()
    states = torch.randn(3, 8, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        scores = encoder.score_items(states)
        for row in range(3):
            for item in range(12):
                expected = states[row].dot(encoder.item_embeddings.weight[item]) + encoder.item_biases[item]
                assert float(scores[row, item]) == pytest.approx(float(expected), abs=1e-5)
