import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from batchrec import objectives
from batchrec.encoder import Encoder
from batchrec.objectives import masked_item_loss
from batchrec.schemas import MASK, PAD
from tests.models import small_encoder

TOKENS = torch.tensor([[5, 6, 7, 8, 9, 10], [3, PAD, PAD, PAD, PAD, PAD], [4, 4, 11, 2, PAD, PAD]], dtype=torch.int32)
MASKED = torch.tensor(
    [
        [True, False, True, False, False, True],
        [True, False, False, False, False, False],
        [False, True, False, True, False, False],
    ]
)


def plain_loss(encoder: Encoder, tokens: Tensor, masked: Tensor) -> Tensor:
    """Scores at every place, cross-entropy at the masked ones."""
    hidden = tokens.clone()
    hidden[masked] = MASK
    states = encoder(hidden, torch.arange(tokens.shape[1]).expand(len(tokens), -1))
    scores = states @ encoder.item_embeddings.weight.T + encoder.item_biases
    return F.cross_entropy(scores[masked], tokens[masked].long())


def gradients(encoder: Encoder, loss: Tensor) -> dict[str, Tensor]:
    encoder.zero_grad()
    loss.backward()
    return {name: weight.grad.clone() for name, weight in encoder.named_parameters() if weight.grad is not None}


def assert_equal_to_plain(encoder: Encoder, tokens: Tensor, masked: Tensor, factor: float = 1.0) -> None:
    loss, expected = masked_item_loss(encoder, tokens, masked), plain_loss(encoder, tokens, masked)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    found, plain = gradients(encoder, loss * factor), gradients(encoder, expected * factor)
    assert found.keys() == plain.keys() == dict(encoder.named_parameters()).keys()
    for name, gradient in plain.items():
        assert torch.allclose(found[name], gradient, rtol=1e-4, atol=1e-5), name


def test_the_loss_and_its_gradients_equal_plain_torch() -> None:
    assert_equal_to_plain(small_encoder(dropout=0.0).train(), TOKENS, MASKED)


@pytest.mark.parametrize("rows", [1, 2, 4, 5, 6])
def test_pieces_change_nothing(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(objectives, "_PIECE_ROWS", rows)
    monkeypatch.setattr(objectives, "_PIECE_SCORES", {"cpu": 1})
    assert_equal_to_plain(small_encoder(dropout=0.0).train(), TOKENS, MASKED)


def test_a_scaled_loss_has_scaled_gradients() -> None:
    assert_equal_to_plain(small_encoder(dropout=0.0).train(), TOKENS, MASKED, factor=3.0)


def test_one_masked_place_in_the_batch_is_enough() -> None:
    assert_equal_to_plain(small_encoder(dropout=0.0).train(), TOKENS[1:2, :1], MASKED[1:2, :1])


def test_large_scores_neither_overflow_nor_lose_the_loss() -> None:
    encoder = small_encoder(dropout=0.0).train()
    with torch.no_grad():
        encoder.item_embeddings.weight *= 30
    assert_equal_to_plain(encoder, TOKENS, MASKED)


def test_the_masked_item_itself_is_not_shown() -> None:
    encoder = small_encoder(dropout=0.0)
    last_alone = torch.tensor([[False, False, True]])
    with torch.no_grad():
        losses = [
            masked_item_loss(encoder, torch.tensor([[5, 6, item]], dtype=torch.int32), last_alone)
            for item in range(2, 12)
        ]
        states = encoder(torch.tensor([[5, 6, MASK]]), torch.tensor([[2]]))[:, 0]
        expected = encoder.score_items(states).softmax(dim=1)[0, 2:]
    assert torch.stack(losses).neg().exp().numpy() == pytest.approx(expected.numpy(), abs=1e-5)
