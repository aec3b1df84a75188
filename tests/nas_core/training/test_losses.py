import numpy as np
import pytest
import torch

from nas_core.training import losses as losses_module
from nas_core.training.losses import class_weights, segmentation_loss


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


def test_loss_of_nothing_but_void_is_zero() -> None:
    logits = torch.randn(2, 3, 4, 4, requires_grad=True)
    loss = segmentation_loss(logits, torch.full((2, 4, 4), 255), torch.ones(3), 255)
    loss.backward()
    assert loss.item() == 0
    assert logits.grad is not None and not logits.grad.any()


@pytest.mark.parametrize("void", ["none", "some", "all"])
def test_without_reading_it_is_the_same(void: str) -> None:
    generator = torch.Generator().manual_seed(0)
    masks = torch.randint(3, (2, 8, 9), generator=generator)
    if void == "some":
        masks[0, :5] = 11
    if void == "all":
        masks[:] = 11
    weights = torch.tensor([0.5, 1.0, 2.5])
    losses, gradients = [], []
    for loss_of in (segmentation_loss, losses_module._loss_without_reading):
        logits = torch.randn(2, 3, 8, 9, generator=generator.manual_seed(1), requires_grad=True)
        loss = loss_of(logits, masks, weights, 11)
        loss.backward()
        losses.append(loss.detach())
        gradients.append(logits.grad)
    torch.testing.assert_close(losses[1], losses[0])
    torch.testing.assert_close(gradients[1], gradients[0])
    assert (losses[0] == 0) == (void == "all")
