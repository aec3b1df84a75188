"""The encoder and its pre-trained weights."""

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torchvision.models import mobilenet_v2

from nas_core.base.errors import WeightsError
from nas_core.models.checkpoint import load_segmenter
from nas_core.models.encoder import IMAGENET_MEAN, IMAGENET_STD, Encoder, load_encoder_weights

pytestmark = pytest.mark.usefixtures("one_thread")

ROOT = Path(__file__).parents[3]
TORCHVISION = mobilenet_v2(weights=None).eval()


def test_it_is_torchvisions_network_with_torchvisions_names() -> None:
    encoder = Encoder().eval()
    state = TORCHVISION.state_dict()
    assert list(encoder.state_dict()) == [
        name for name in state if name.startswith(tuple(f"features.{i}." for i in range(7)))
    ]
    assert sum(parameter.numel() for parameter in encoder.parameters()) == 55_488
    encoder.load_state_dict({name: state[name] for name in encoder.state_dict()})
    images = torch.randn(2, 3, 50, 67)
    with torch.no_grad():
        taps = encoder(images)
        expected = TORCHVISION.features[:4](images)
        torch.testing.assert_close(taps[0], expected)
        torch.testing.assert_close(taps[1], TORCHVISION.features[4:7](expected))
    assert taps[0].shape == (2, 24, 13, 17)
    assert taps[1].shape == (2, 32, 7, 9)


def test_gradients_are_torchvisions() -> None:
    encoder, reference = Encoder(), mobilenet_v2(weights=None).features[:7]
    encoder.features.load_state_dict(reference.state_dict())
    images = torch.randn(2, 3, 32, 40)
    encoder(images)[1].square().sum().backward()
    reference(images).square().sum().backward()
    for (name, parameter), other in zip(
        encoder.named_parameters(), reference.parameters(), strict=True
    ):
        assert parameter.grad is not None
        assert other.grad is not None
        error = (parameter.grad - other.grad).norm() / other.grad.norm()
        assert error < 1e-3, name


def test_none_means_random_weights(tmp_path: Path) -> None:
    assert load_encoder_weights("none", tmp_path) is None


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_weights_from_a_file_of_the_whole_network(tmp_path: Path, suffix: str) -> None:
    state = TORCHVISION.state_dict()
    path = tmp_path / f"weights{suffix}"
    if suffix == ".pt":
        torch.save(state, path)
    else:
        save_file(state, path)
    for reference in (path.name, str(path)):
        weights = load_encoder_weights(reference, tmp_path)
        assert weights is not None
        encoder = Encoder()
        assert list(weights) == list(encoder.state_dict())
        encoder.load_state_dict(weights)
        name = "features.6.conv.2.weight"
        assert torch.equal(encoder.state_dict()[name], state[name])


@pytest.mark.parametrize("reference", ["models/arch0-camvid.safetensors", "arch0-camvid"])
def test_a_shipped_model_gives_its_encoder(reference: str) -> None:
    weights = load_encoder_weights(reference, ROOT)
    assert weights is not None
    Encoder().load_state_dict(weights)
    network, _ = load_segmenter(ROOT / "models" / "arch0-camvid.safetensors")
    expected = network.encoder.state_dict()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in weights.items())


def test_real_weights_see_images(encoder_weights: Path) -> None:
    weights = load_encoder_weights(str(encoder_weights), encoder_weights.parent)
    assert weights is not None
    encoder = Encoder().eval()
    encoder.load_state_dict(weights)
    grey = (torch.full((3, 1, 1), 0.5) - torch.tensor(IMAGENET_MEAN).view(3, 1, 1)) / torch.tensor(
        IMAGENET_STD
    ).view(3, 1, 1)
    with torch.no_grad():
        flat = encoder(grey.expand(1, 3, 64, 64))[1]
        noisy = encoder(grey + torch.randn(1, 3, 64, 64))[1]
    assert flat.isfinite().all()
    assert noisy.std() > flat.std()


def encoder_state() -> dict[str, Any]:
    return dict(Encoder().state_dict())


def altered_states() -> Iterator[Any]:
    name = "features.3.conv.0.0.weight"
    state = encoder_state()
    del state[name]
    yield pytest.param(state, rf"1 of 108 entries are missing, the first is {name}", id="missing")
    yield pytest.param(
        encoder_state() | {name: torch.zeros(3, 3)},
        rf"{name} is torch.float32 \[3, 3\], expected .* \[144, 24, 1, 1\]",
        id="shape",
    )
    yield pytest.param(encoder_state() | {name: 3}, f"{name} is int, expected", id="no tensor")
    yield pytest.param(
        encoder_state() | {name: torch.full((144, 24, 1, 1), torch.nan)},
        f"{name} has values that are not finite",
        id="nan",
    )
    whole = torch.zeros(144, 24, 1, 1)
    for dtype in (torch.int64, torch.bool, torch.complex64, torch.uint16, torch.float8_e4m3fn):
        yield pytest.param(
            encoder_state() | {name: whole.to(dtype)}, f"{name} is {dtype} .*float32", id=str(dtype)
        )
    for kind, value in (
        ("layout torch.sparse_coo", whole.to_sparse()),
        ("layout torch.sparse_csr", whole.reshape(144, 24).to_sparse_csr()),
        ("values", whole.to("meta")),
    ):
        yield pytest.param(
            encoder_state() | {name: value}, f"{name} is a tensor .*{kind}, expected", id=kind
        )
    yield pytest.param(
        encoder_state() | {name: whole.double() + 1e300},
        f"{name} has values that are not finite",
        id="too large for float32",
    )
    yield pytest.param({}, "108 of 108 entries are missing", id="empty")
    yield pytest.param([1, 2], "holds no state dict", id="list")


@pytest.mark.parametrize(("state", "message"), list(altered_states()))
def test_weights_of_another_network_are_refused(
    tmp_path: Path, state: Any, message: str, recwarn: pytest.WarningsRecorder
) -> None:
    torch.save(state, tmp_path / "other.pt")
    recwarn.clear()
    with pytest.raises(WeightsError, match=rf"other\.pt.*{message}"):
        load_encoder_weights("other.pt", tmp_path)
    assert not recwarn.list


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_weights_of_any_floating_point_type(
    tmp_path: Path, dtype: torch.dtype, suffix: str
) -> None:
    state = {name: value.to(dtype) for name, value in encoder_state().items()}
    path = tmp_path / f"weights{suffix}"
    torch.save(state, path) if suffix == ".pt" else save_file(state, path)
    weights = load_encoder_weights(path.name, tmp_path)
    assert weights is not None
    Encoder().load_state_dict(weights)


def test_safetensors_of_integers_are_refused(tmp_path: Path) -> None:
    state = {name: value.to(torch.int8) for name, value in encoder_state().items()}
    save_file(state, tmp_path / "int8.safetensors")
    with pytest.raises(WeightsError, match=r"int8\.safetensors: features\.0\.0\.weight is .*int8"):
        load_encoder_weights("int8.safetensors", tmp_path)


@pytest.mark.parametrize("name", ["bad.pt", "bad.safetensors"])
@pytest.mark.parametrize("content", [b"", b"weights", b"PK\x03\x04" + bytes(60), bytes(200)])
def test_unreadable_files_are_named(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(WeightsError, match=rf"encoder\.weights: .*{name} cannot be read: "):
        load_encoder_weights(name, tmp_path)


def test_a_truncated_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "cut.pt"
    torch.save(encoder_state(), path)
    path.write_bytes(path.read_bytes()[:100_000])
    with pytest.raises(WeightsError, match=r"cut\.pt cannot be read"):
        load_encoder_weights("cut.pt", tmp_path)


class Unwanted:
    """An object that would run code when unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return print, ("unpickled",)


def test_nothing_is_unpickled_but_tensors(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save({"features.0.0.weight": Unwanted()}, tmp_path / "code.pt")
    with pytest.raises(WeightsError, match=r"code\.pt cannot be read"):
        load_encoder_weights("code.pt", tmp_path)
    assert "unpickled" not in capsys.readouterr().out


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"absent\.pt is not a file; give the path"):
        load_encoder_weights("absent.pt", tmp_path)


def test_a_failed_download_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Through a proxy that refuses connections: a port that is bound but not listened on."""
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        monkeypatch.setenv("TORCH_HOME", str(tmp_path))
        monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{closed.getsockname()[1]}")
        monkeypatch.delenv("no_proxy", raising=False)
        monkeypatch.delenv("NO_PROXY", raising=False)
        with pytest.raises(WeightsError, match=r"set encoder\.weights to a file .*'none'"):
            load_encoder_weights("imagenet", tmp_path)
