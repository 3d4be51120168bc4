import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from batchrec.config import Objective
from batchrec.tables.schemas import MASK, PAD
from batchrec.training import loss as objectives
from batchrec.training.encoder import Encoder
from batchrec.training.loss import ItemLoss
from batchrec.training.windows import mask_items, next_item_labels
from tests.support.models import small_encoder, tokens_of

VOCABULARY_SIZE = 12
ITEMS = tokens_of([5, 6, 7, 8, 9, 10], [3, 3], [4, 4, 11, 2])
MASKED = torch.tensor([[1, 0, 1, 0, 0, 1], [1, 0, 0, 0, 0, 0], [0, 1, 0, 1, 0, 0]], dtype=torch.bool)
# 7 and 11 are labels with both objectives, 5 only with the masked one, 3 of another place; 2 and 8 with neither.
NEGATIVES = {"all": None, "some": [2, 3, 5, 7, 8, 11], "one, a label": [7], "one, no label": [9]}


def labelled(objective: Objective) -> tuple[Tensor, Tensor]:
    """Tokens and labels of ITEMS."""
    if objective == "causal":
        tokens, labels = next_item_labels(ITEMS.numpy())
    else:
        tokens, labels = mask_items(ITEMS.numpy(), MASKED.numpy())
    return torch.from_numpy(tokens), torch.from_numpy(labels)


def training_encoder(objective: Objective) -> Encoder:
    return small_encoder(VOCABULARY_SIZE, objective=objective, dropout=0.0).train()


def plain_loss(
    encoder: Encoder, tokens: Tensor, labels: Tensor, negatives: list[int] | None, weights: Tensor | None = None
) -> Tensor:
    """Score every item at every place; cross-entropy place by place, of the label against its negatives."""
    weights = torch.ones(labels.shape) if weights is None else weights
    scores = encoder(tokens) @ encoder.item_embeddings.weight.T + encoder.item_biases
    losses = []
    for row, line in enumerate(labels.tolist()):
        for place, label in enumerate(line):
            if label != PAD:
                others = [item for item in negatives or range(VOCABULARY_SIZE) if item != label]
                loss = F.cross_entropy(scores[row, place][[label, *others]], torch.tensor(0))
                losses.append(float(weights[row, place]) * loss)
    return torch.stack(losses).mean()


def gradients(encoder: Encoder, loss: Tensor) -> dict[str, Tensor]:
    encoder.zero_grad()
    loss.backward()
    return {name: weight.grad.clone() for name, weight in encoder.named_parameters() if weight.grad is not None}


def weights_of(labels: Tensor) -> Tensor:
    """A weight for each place, some of them 0."""
    return torch.rand(labels.shape, generator=torch.Generator().manual_seed(3)).mul(4).sub(0.5).clamp(min=0)


def assert_equal_to_plain(
    encoder: Encoder, negatives: list[int] | None = None, factor: float = 1.0, weighs: bool = False
) -> None:
    tokens, labels = labelled(encoder.shape.objective)
    drawn = None if negatives is None else torch.tensor(negatives)
    weights = weights_of(labels) if weighs else None
    loss = ItemLoss(encoder)(tokens, labels, drawn, weights)
    expected = plain_loss(encoder, tokens, labels, negatives, weights)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    own, plain = gradients(encoder, loss * factor), gradients(encoder, expected * factor)
    assert own.keys() == plain.keys() == dict(encoder.named_parameters()).keys()
    for name, gradient in plain.items():
        assert torch.allclose(own[name], gradient, rtol=1e-4, atol=1e-5), name


@pytest.mark.parametrize("negatives", NEGATIVES.values(), ids=NEGATIVES.keys())
def test_the_loss_and_its_gradients_equal_plain_torch(objective: Objective, negatives: list[int] | None) -> None:
    assert_equal_to_plain(training_encoder(objective), negatives)


@pytest.mark.parametrize("negatives", NEGATIVES.values(), ids=NEGATIVES.keys())
def test_labels_count_by_their_weights(objective: Objective, negatives: list[int] | None) -> None:
    assert_equal_to_plain(training_encoder(objective), negatives, weighs=True)


def test_weights_of_1_change_nothing(objective: Objective) -> None:
    encoder = training_encoder(objective)
    tokens, labels = labelled(objective)
    losses = [ItemLoss(encoder)(tokens, labels, None, weights) for weights in (None, torch.ones(labels.shape))]
    assert losses[0].item() == losses[1].item()
    plain, weighed = (gradients(encoder, loss) for loss in losses)
    assert all(torch.equal(plain[name], weighed[name]) for name in plain)


@pytest.mark.parametrize("rows", [1, 2, 4, 5, 8])
@pytest.mark.parametrize("weighs", [False, True])
@pytest.mark.parametrize("negatives", NEGATIVES.values(), ids=NEGATIVES.keys())
def test_pieces_change_nothing(
    negatives: list[int] | None, weighs: bool, rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(objectives, "_PIECE_ROWS", rows)
    monkeypatch.setattr(objectives, "_PIECE_SCORES", {"cpu": 1})
    assert_equal_to_plain(training_encoder("causal"), negatives, weighs=weighs)


@pytest.mark.parametrize("negatives", NEGATIVES.values(), ids=NEGATIVES.keys())
def test_a_scaled_loss_has_scaled_gradients(negatives: list[int] | None) -> None:
    assert_equal_to_plain(training_encoder("causal"), negatives, factor=3.0)


@pytest.mark.parametrize("negatives", NEGATIVES.values(), ids=NEGATIVES.keys())
def test_large_scores_neither_overflow_nor_lose_the_loss(objective: Objective, negatives: list[int] | None) -> None:
    encoder = training_encoder(objective)
    with torch.no_grad():
        encoder.item_embeddings.weight *= 30
    assert_equal_to_plain(encoder, negatives)


def test_all_items_as_negatives_equal_the_full_softmax() -> None:
    encoder = training_encoder("causal")
    with torch.no_grad():
        encoder.item_biases[[PAD, MASK]] = -50.0
    tokens, labels = labelled("causal")
    losses = [
        ItemLoss(encoder)(tokens, labels, negatives) for negatives in (None, torch.arange(MASK + 1, VOCABULARY_SIZE))
    ]
    assert losses[0].item() == pytest.approx(losses[1].item(), rel=1e-5)
    whole, items = (gradients(encoder, loss) for loss in losses)
    for name, gradient in whole.items():
        assert torch.allclose(items[name], gradient, rtol=1e-4, atol=1e-5), name


def test_a_place_whose_only_negative_is_its_label_has_no_loss() -> None:
    encoder = training_encoder("causal")
    loss = ItemLoss(encoder)(tokens_of([5, 6]), tokens_of([PAD, 7]), torch.tensor([7]))
    assert loss.item() == 0.0
    assert all(not gradient.any() for gradient in gradients(encoder, loss).values())


@pytest.mark.parametrize("negatives", NEGATIVES.values(), ids=NEGATIVES.keys())
def test_bf16_rounds_and_no_more(objective: Objective, negatives: list[int] | None) -> None:
    encoder = training_encoder(objective)
    tokens, labels = labelled(objective)
    with torch.autocast("cpu", torch.bfloat16):
        loss = ItemLoss(encoder)(tokens, labels, None if negatives is None else torch.tensor(negatives))
    expected = plain_loss(encoder, tokens, labels, negatives)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(expected.item(), rel=0.02)
    own, plain = gradients(encoder, loss), gradients(encoder, expected)
    assert all(gradient.dtype == torch.float32 for gradient in own.values())
    for names in (["item_embeddings.weight"], ["item_biases"], list(plain)):
        one, other = (torch.cat([of[name].flatten() for name in names]) for of in (own, plain))
        assert torch.linalg.vector_norm(one - other) < 0.03 * torch.linalg.vector_norm(other), names


def test_one_labelled_place_in_the_batch_is_enough(objective: Objective) -> None:
    encoder = training_encoder(objective)
    tokens, labels = tokens_of([5, 6, 7], [8]), tokens_of([PAD, 9, PAD], [PAD])
    with torch.no_grad():
        scores = encoder.score_items(encoder(tokens)[0, 1:2])
        assert float(ItemLoss(encoder)(tokens, labels)) == pytest.approx(float(-scores.log_softmax(dim=1)[0, 9]))


def test_the_masked_item_itself_is_not_shown() -> None:
    encoder = small_encoder(VOCABULARY_SIZE, objective="masked")
    losses = []
    with torch.no_grad():
        for item in range(2, VOCABULARY_SIZE):
            hidden = mask_items(np.array([[5, 6, item]], np.int32), np.array([[False, False, True]]))
            losses.append(ItemLoss(encoder)(*map(torch.from_numpy, hidden)))
        expected = encoder.score_items(encoder(torch.tensor([[5, 6, MASK]]))[0, -1:]).softmax(dim=1)[0, 2:]
    assert torch.stack(losses).neg().exp().numpy() == pytest.approx(expected.numpy(), abs=1e-5)
