import pytest
import torch
from torch import Tensor, nn

from batchrec.encoder import Encoder
from batchrec.schemas import PAD
from tests.models import small_encoder


def tokens_of(*rows: list[int], width: int | None = None) -> Tensor:
    width = width or max(map(len, rows))
    return torch.tensor([row + [PAD] * (width - len(row)) for row in rows], dtype=torch.int32)


def states_at_all_places(encoder: Encoder, tokens: Tensor) -> Tensor:
    with torch.inference_mode():
        states: Tensor = encoder(tokens, torch.arange(tokens.shape[1]).expand(len(tokens), -1))
    return states


def independent_states(encoder: Encoder, tokens: Tensor, n_layers: int, n_heads: int) -> Tensor:
    """The same encoder of torch's own layers, every place computed."""
    weights = encoder.state_dict()
    items, positions = weights["item_embeddings.weight"], weights["position_embeddings.weight"]
    size = items.shape[1]
    hidden = torch.zeros(*tokens.shape, size)
    for row, line in enumerate(tokens.tolist()):
        length = sum(token != PAD for token in line)
        for place, token in enumerate(line[:length]):
            hidden[row, place] = items[token] + positions[length - 1 - place]
    for number in range(n_layers):
        layer = nn.TransformerEncoderLayer(
            size, n_heads, 4 * size, dropout=0.0, activation="gelu", norm_first=True, batch_first=True
        ).eval()
        own = {n.removeprefix(f"blocks.{number}."): w for n, w in weights.items() if n.startswith(f"blocks.{number}.")}
        for kind in ("weight", "bias"):
            own[f"self_attn.in_proj_{kind}"] = torch.cat([own.pop(f"query.{kind}"), own.pop(f"key_value.{kind}")])
        layer.load_state_dict({torchs_name(name): weight for name, weight in own.items()})
        hidden = layer(hidden, src_key_padding_mask=tokens == PAD)
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


ROWS = ([5, 6, 7, 8, 9, 10], [3], [4, 4, 11], [2, 9, 2, 1])


@pytest.mark.parametrize(("n_layers", "n_heads"), [(1, 1), (2, 2), (3, 4)])
def test_the_encoder_equals_torchs_own_layers(n_layers: int, n_heads: int) -> None:
    encoder = small_encoder(n_layers=n_layers, n_heads=n_heads)
    tokens = tokens_of(*ROWS)
    found = states_at_all_places(encoder, tokens)
    with torch.no_grad():
        expected = independent_states(encoder, tokens, n_layers, n_heads)
    inside = tokens != PAD
    assert torch.allclose(found[inside], expected[inside], atol=1e-5)


def test_training_mode_without_dropout_computes_the_same() -> None:
    encoder = small_encoder(dropout=0.0)
    tokens = tokens_of(*ROWS)
    in_evaluation = states_at_all_places(encoder, tokens)
    assert torch.allclose(states_at_all_places(encoder.train(), tokens), in_evaluation, atol=1e-5)


def test_dropout_acts_in_training_alone() -> None:
    encoder = small_encoder(dropout=0.5)
    tokens = tokens_of(*ROWS)
    assert torch.equal(states_at_all_places(encoder, tokens), states_at_all_places(encoder, tokens))
    encoder.train()
    assert not torch.allclose(states_at_all_places(encoder, tokens), states_at_all_places(encoder, tokens))


def test_pad_is_never_attended_to() -> None:
    encoder = small_encoder()
    alone = states_at_all_places(encoder, tokens_of([4, 4, 11]))
    padded = states_at_all_places(encoder, tokens_of([4, 4, 11], width=30))
    assert torch.allclose(padded[:, :3], alone, atol=1e-5)


def test_what_pad_is_embedded_as_changes_nothing() -> None:
    encoder = small_encoder()
    tokens = tokens_of(*ROWS)
    before = states_at_all_places(encoder, tokens)
    with torch.no_grad():
        encoder.item_embeddings.weight[PAD] = 100.0
    after = states_at_all_places(encoder, tokens)
    assert torch.allclose(after[tokens != PAD], before[tokens != PAD], atol=1e-5)


def test_other_rows_of_a_batch_change_nothing() -> None:
    encoder = small_encoder()
    together = states_at_all_places(encoder, tokens_of(*ROWS))
    for row, states in zip(ROWS, together, strict=True):
        assert torch.allclose(states[: len(row)], states_at_all_places(encoder, tokens_of(row))[0], atol=1e-5)


def test_an_earlier_place_sees_a_later_item() -> None:
    encoder = small_encoder()
    one = states_at_all_places(encoder, tokens_of([5, 6, 7]))
    other = states_at_all_places(encoder, tokens_of([5, 6, 8]))
    assert not torch.allclose(one[0, 0], other[0, 0], atol=1e-3)


def test_positions_count_from_the_newest() -> None:
    encoder = small_encoder()
    before = states_at_all_places(encoder, tokens_of([5, 6], [7, 8, 9]))
    with torch.no_grad():
        encoder.position_embeddings.weight[2] *= -1
    after = states_at_all_places(encoder, tokens_of([5, 6], [7, 8, 9]))
    assert torch.allclose(after[0, :2], before[0, :2], atol=1e-5)
    assert not torch.allclose(after[1], before[1], atol=1e-3)


def test_order_matters() -> None:
    encoder = small_encoder()
    one = states_at_all_places(encoder, tokens_of([5, 6, 7]))[0, -1]
    other = states_at_all_places(encoder, tokens_of([6, 5, 7]))[0, -1]
    assert not torch.allclose(one, other, atol=1e-3)


def test_states_at_places_are_those_computed_for_all_places() -> None:
    encoder = small_encoder(n_layers=2)
    tokens = tokens_of(*ROWS)
    places = torch.tensor([[5, 0], [0, 0], [2, 1], [3, 3]])
    with torch.inference_mode():
        chosen = encoder(tokens, places)
    everywhere = states_at_all_places(encoder, tokens)
    for row in range(len(ROWS)):
        assert torch.allclose(chosen[row], everywhere[row, places[row]], atol=1e-5)


def test_items_are_scored_by_their_own_embeddings() -> None:
    encoder = small_encoder()
    states = torch.randn(3, 8, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        scores = encoder.score_items(states)
        for row in range(3):
            for item in range(12):
                expected = states[row].dot(encoder.item_embeddings.weight[item]) + encoder.item_biases[item]
                assert float(scores[row, item]) == pytest.approx(float(expected), abs=1e-5)
