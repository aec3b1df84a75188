import numpy as np
import pytest
import torch

from nas_core.training.losses import class_weights, jaccard_loss, segmentation_loss


def test_class_weights_are_enets_with_mean_one() -> None:
    shares = torch.tensor([0.7, 0.29, 0.01], dtype=torch.float64)
    expected = 1 / np.log(1.10 + shares.numpy())
    expected /= expected.mean()
    weights = class_weights(shares)
    assert weights.mean().item() == pytest.approx(1.0)
    np.testing.assert_allclose(weights.numpy(), expected, rtol=1e-6)
    assert weights[2] > weights[1] > weights[0]


def test_loss_is_the_weighted_mean_over_labelled_pixels() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 3, 4, 5, generator=generator)
    masks = torch.randint(0, 4, (2, 4, 5), generator=generator)  # 3 is void
    weights = torch.tensor([0.5, 1.0, 2.0])
    log_probabilities = logits.double().log_softmax(1).permute(0, 2, 3, 1).reshape(-1, 3).numpy()
    labels = masks.reshape(-1).numpy()
    kept = labels != 3
    of_pixels = weights.numpy()[labels[kept]]
    picked = log_probabilities[kept, labels[kept]]
    expected = -(of_pixels * picked).sum() / of_pixels.sum()
    assert segmentation_loss(logits, masks, weights, 3).item() == pytest.approx(expected, rel=1e-5)


def test_bf16_logits_give_an_fp32_loss() -> None:
    logits = torch.zeros(1, 3, 2, 2, dtype=torch.bfloat16)
    loss = segmentation_loss(logits, torch.zeros(1, 2, 2, dtype=torch.int64), torch.ones(3), 11)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(np.log(3))


def test_hard_share_keeps_the_pixels_of_the_highest_loss() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 3, 4, 5, generator=generator)
    masks = torch.randint(0, 4, (2, 4, 5), generator=generator)  # 3 is void
    weights = torch.tensor([0.5, 1.0, 2.0])
    labels = masks.reshape(-1).numpy()
    kept = labels != 3
    log_probabilities = logits.double().log_softmax(1).permute(0, 2, 3, 1).reshape(-1, 3).numpy()
    of_pixels = weights.numpy()[labels[kept]]
    losses = -of_pixels * log_probabilities[kept, labels[kept]]
    hardest = np.argsort(losses)[::-1][: round(0.25 * len(losses))]
    expected = losses[hardest].sum() / of_pixels[hardest].sum()
    loss = segmentation_loss(logits, masks, weights, 3, hard_share=0.25)
    assert loss.item() == pytest.approx(expected, rel=1e-5)
    assert loss > segmentation_loss(logits, masks, weights, 3)


def test_jaccard_loss_is_one_minus_the_soft_iou_of_the_classes_there() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 4, 4, 5, generator=generator)
    masks = torch.tensor([0, 1, 7])[torch.randint(0, 3, (2, 4, 5), generator=generator)]
    probabilities = logits.double().softmax(1).permute(0, 2, 3, 1).reshape(-1, 4).numpy()
    labels = masks.reshape(-1).numpy()
    probabilities, labels = probabilities[labels != 7], labels[labels != 7]
    ious = []
    for label in (0, 1):  # 2 and 3 are not there, 7 is void
        truth = (labels == label).astype(float)
        p = probabilities[:, label]
        ious.append((p * truth).sum() / (p + truth - p * truth).sum())
    loss = jaccard_loss(logits, masks, 7)
    assert loss.item() == pytest.approx(1 - np.mean(ious), rel=1e-5)
    together = segmentation_loss(logits, masks, torch.ones(4), 7, jaccard=0.5)
    plain = segmentation_loss(logits, masks, torch.ones(4), 7)
    assert together.item() == pytest.approx((plain + 0.5 * loss).item(), rel=1e-6)


def test_jaccard_loss_of_a_perfect_and_of_a_wrong_answer() -> None:
    masks = torch.tensor([[[0, 1], [2, 2]]])
    right = 50 * torch.nn.functional.one_hot(masks, 3).permute(0, 3, 1, 2).float()
    assert jaccard_loss(right, masks, 255).item() == pytest.approx(0, abs=1e-6)
    assert jaccard_loss(right.roll(1, dims=1), masks, 255).item() == pytest.approx(1, abs=1e-6)


def test_jaccard_loss_of_nothing_but_void_is_zero() -> None:
    logits = torch.randn(1, 3, 2, 2, requires_grad=True)
    loss = jaccard_loss(logits, torch.full((1, 2, 2), 255), 255)
    loss.backward()
    assert loss.item() == 0
    assert logits.grad is not None and not logits.grad.any()


@pytest.mark.parametrize("hard_share", [1.0, 0.5])
@pytest.mark.parametrize("jaccard", [0.0, 1.0])
def test_loss_of_nothing_but_void_is_zero(hard_share: float, jaccard: float) -> None:
    logits = torch.randn(2, 3, 4, 4, requires_grad=True)
    masks = torch.full((2, 4, 4), 255)
    loss = segmentation_loss(
        logits, masks, torch.ones(3), 255, hard_share=hard_share, jaccard=jaccard
    )
    loss.backward()
    assert loss.item() == 0
    assert logits.grad is not None and not logits.grad.any()


def test_hard_share_of_one_labelled_pixel() -> None:
    logits, masks = torch.randn(1, 3, 4, 4), torch.full((1, 4, 4), 255)
    masks[0, 1, 2] = 1
    loss = segmentation_loss(logits, masks, torch.ones(3), 255, hard_share=0.1)
    expected = torch.nn.functional.cross_entropy(logits[:, :, 1, 2], torch.tensor([1]))
    torch.testing.assert_close(loss, expected)
