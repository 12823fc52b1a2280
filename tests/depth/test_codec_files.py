"""Depth codecs on disk: our folder, and the layout of the published file."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from molmoact2.depth.codec import CodecConfig, DepthCodec, DepthScale, fingerprint, load_codec, save_codec
from molmoact2.depth.codec_files import read_folder, shapes_of

SMALL = CodecConfig(
    image_size=32,
    channels=(4, 6),
    code_dim=5,
    num_codes=8,
    scale=DepthScale(kind="fixed", low=0.25, high=2.0),
    unit="m",
)
DEPTH = np.random.default_rng(1).uniform(0.3, 2.2, (3, 32, 32)).astype(np.float32)


def small(seed: int = 0) -> DepthCodec:
    torch.manual_seed(seed)
    codec = DepthCodec(SMALL)
    codec.network.codebook.vectors.normal_()
    return codec


def test_there_and_back(tmp_path: Path):
    codec = small()
    save_codec(codec, tmp_path / "codec")
    again = load_codec(str(tmp_path / "codec"))
    assert again.config == codec.config
    assert fingerprint(again) == fingerprint(codec)
    np.testing.assert_array_equal(again.encode(DEPTH), codec.encode(DEPTH))
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["codec", "config.json", "model.safetensors"]
    assert not any(parameter.requires_grad for parameter in again.parameters())


@pytest.mark.parametrize("kind", ["frame", "episode"])
def test_scales_without_limits_there_and_back(tmp_path: Path, kind: str):
    codec = DepthCodec(CodecConfig(image_size=32, channels=(2,), code_dim=2, scale=DepthScale(kind=kind)))
    save_codec(codec, tmp_path / "codec")
    assert load_codec(tmp_path / "codec").config == codec.config


def test_fingerprints_tell_codecs_apart():
    prints = {fingerprint(small(seed)) for seed in (0, 0, 1)}
    assert len(prints) == 2
    other = DepthCodec(CodecConfig(**{**vars(SMALL), "scale": DepthScale(kind="fixed", low=0.25, high=2.5)}))
    other.load_state_dict(small().state_dict())
    assert fingerprint(other) not in prints


def test_nothing_is_overwritten(tmp_path: Path):
    save_codec(small(), tmp_path / "codec")
    before = (tmp_path / "codec" / "model.safetensors").read_bytes()
    with pytest.raises(ValueError, match="exists already"):
        save_codec(small(1), tmp_path / "codec")
    assert (tmp_path / "codec" / "model.safetensors").read_bytes() == before
    (tmp_path / "empty").mkdir()
    save_codec(small(1), tmp_path / "empty")
    load_codec(tmp_path / "empty")


def change_config(folder: Path, **fields: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def change_weights(folder: Path, change: Callable[[dict[str, Tensor]], object]) -> None:
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors")


@pytest.mark.parametrize(
    ("damage", "complaint"),
    [
        (lambda folder: (folder / "config.json").unlink(), "lacks config.json"),
        (lambda folder: (folder / "model.safetensors").unlink(), "lacks model.safetensors"),
        (lambda folder: (folder / "config.json").write_text("{"), "config.json is not valid JSON"),
        (lambda folder: change_config(folder, format="other"), "'format' is 'other'"),
        (lambda folder: change_config(folder, code_dim="5"), "'code_dim' must be of type int, got '5'"),
        (lambda folder: change_config(folder, code_dim=6), "does not fit its config.json: .* tensors differ"),
        (lambda folder: change_config(folder, unit="feet"), "'unit' must be one of m, inverse, got 'feet'"),
        (lambda folder: change_config(folder, scale={"kind": "fixed"}), "has both limits"),
        (lambda folder: change_config(folder, scale={"kind": "fixd"}), "'kind' must be one of frame, episode, fixed"),
        (lambda folder: change_config(folder, scale={"kind": "fixed", "low": "0", "high": 1}), "'low' must be"),
        (lambda folder: change_config(folder, scale={"kind": "frame", "top": 3}), "no depth codec has: top"),
        (lambda folder: change_config(folder, nots=1), "fields that no depth codec has: nots"),
        (lambda folder: os.truncate(folder / "model.safetensors", 900), "was cut off"),
        (lambda folder: (folder / "model.safetensors").write_bytes(b"PK\x03\x04" * 30), "is not a safetensors file"),
        (lambda folder: change_weights(folder, lambda t: t.pop("codebook.vectors")), "1 tensors differ"),
        (lambda folder: change_weights(folder, lambda t: t.update(extra=torch.zeros(1))), "such as .'extra'"),
        (lambda folder: change_weights(folder, lambda t: t["codebook.vectors"].fill_(torch.nan)), "not finite"),
        (
            lambda folder: change_weights(folder, lambda t: t.update({"codebook.vectors": torch.zeros(8, 5).long()})),
            "not finite floating-point",
        ),
    ],
)
def test_malformed_folders(tmp_path: Path, damage: Callable[[Path], object], complaint: str):
    save_codec(small(), tmp_path / "codec")
    damage(tmp_path / "codec")
    with pytest.raises(ValueError, match=complaint):
        load_codec(tmp_path / "codec")


def test_no_codec_at_all(tmp_path: Path):
    with pytest.raises(ValueError, match="There is no depth codec at"):
        load_codec(tmp_path / "nothing")


KILLED = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from test_codec_files import small
from molmoact2.depth import codec_files
from molmoact2.depth.codec import save_codec
codec_files.{step} = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)
save_codec(small(), Path({folder!r}))
"""


@pytest.mark.parametrize("step", ["write_tensors", "flush"])
def test_a_killed_writer_leaves_no_folder(tmp_path: Path, step: str):
    script = KILLED.format(tests=str(Path(__file__).parent), step=step, folder=str(tmp_path / "codec"))
    result = subprocess.run([sys.executable, "-c", script], check=False)
    assert result.returncode == -signal.SIGKILL
    assert not (tmp_path / "codec").exists()
    save_codec(small(), tmp_path / "codec")
    load_codec(tmp_path / "codec")


# The published file. It was not at hand: these are made files of the reference's shapes.


def published(seed: int = 0) -> dict[str, Tensor]:
    """Tensors named as somebody else would name them, in the order encoder, codebook, decoder."""
    torch.manual_seed(seed)
    ours = DepthCodec(CodecConfig()).network.state_dict()
    vectors = torch.randn(128, 512)
    names = {
        name: {"encoder.": "enc.net.", "decoder.": "dec.net."}[name[:8]] + f"{number}.{name.rsplit('.')[-1]}"
        for number, name in enumerate(ours)
        if name != "codebook.vectors"
    }
    encoder = {names[name]: tensor for name, tensor in ours.items() if name.startswith("encoder.")}
    decoder = {names[name]: tensor for name, tensor in ours.items() if name.startswith("decoder.")}
    return {**encoder, "quant.weight": vectors, **decoder}


def averaged(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same with the moving averages that the vectors are made from."""
    counts = torch.rand(128) * 9 + 1
    smoothed = (counts + 1e-5) / (counts.sum() + 128e-5) * counts.sum()
    averages = {"quant.ema_w": tensors["quant.weight"] * smoothed[:, None], "quant.cluster_size": counts}
    return {**averages, **tensors}


def write(path: Path, tensors: object) -> Path:
    torch.save({"weights": tensors, "epoch": 3}, path)
    return path


@pytest.fixture(scope="module")
def tensors() -> dict[str, Tensor]:
    return published()


@pytest.mark.parametrize(
    "store",
    [
        lambda t: t,
        averaged,
        lambda t: {**t, "quant.initted": torch.ones(1)},
        lambda t: {**t, "quant.weight": t["quant.weight"].T.contiguous()},
        lambda t: {**t, "quant.weight": t["quant.weight"][None]},
        lambda t: {name: t[name] for name in sorted(t, key=lambda name: not name.startswith("dec"))},
        lambda t: {name: tensor.double() for name, tensor in t.items()},
    ],
    ids=["plain", "with averages", "with a flag", "as columns", "of one head", "decoder first", "float64"],
)
def test_the_published_layout(tmp_path: Path, tensors: dict[str, Tensor], store: Callable):
    codec = load_codec(write(tmp_path / "vae-final.pt", store(tensors)))
    assert codec.config == CodecConfig()
    assert codec.config.scale.kind == "frame"
    ours = [name for name in shapes_of(CodecConfig()) if name != "codebook.vectors"]
    theirs = [name for name in tensors if name != "quant.weight"]
    weights = codec.network.state_dict()
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(weights[mine], tensors[other])
    torch.testing.assert_close(weights["codebook.vectors"], tensors["quant.weight"])


def test_a_published_codec_becomes_a_folder(tmp_path: Path, tensors: dict[str, Tensor]):
    codec = load_codec(write(tmp_path / "vae-final.pt", tensors))
    save_codec(codec, tmp_path / "codec")
    assert fingerprint(load_codec(tmp_path / "codec")) == fingerprint(codec)
    assert read_folder(tmp_path / "codec")[0] == CodecConfig()


def without(tensors: dict[str, Tensor], *names: str) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in tensors.items() if name not in names}


@pytest.mark.parametrize(
    ("spoil", "complaint"),
    [
        (
            lambda t: without(t, next(iter(t))),
            "the encoder is a run of .* 0 such runs were found in 50 tensors: enc.net",
        ),
        (lambda t: without(t, list(t)[-1]), "the decoder is a run of .* 0 such runs"),
        (lambda t: {**t, **{f"copy.{name}": t[name] for name in t if name.startswith("enc")}}, "2 such runs"),
        (lambda t: without(t, "quant.weight"), "the codebook should be one tensor .* found 0 tensors"),
        (lambda t: {**t, "other": t["quant.weight"] + 1}, "or two and their 128 counts; found 2 tensors: quant.weight"),
        (lambda t: {**averaged(t), "quant.ema_w": t["quant.weight"] + 1}, "cannot be told"),
        (lambda t: {**t, "head.weight": torch.zeros(3, 3)}, "the codebook only, found .* head.weight .3, 3."),
        (lambda t: {**t, "quant.weight": t["quant.weight"] * torch.nan}, "not finite"),
        (lambda t: {**t, "epoch": 3}, "are not tensors: .'epoch'"),
        (lambda t: list(t.values()), "must hold a dictionary with 'weights'"),
    ],
)
def test_published_files_that_are_not_clear(
    tmp_path: Path, tensors: dict[str, Tensor], spoil: Callable, complaint: str
):
    with pytest.raises(ValueError, match=complaint):
        load_codec(write(tmp_path / "vae-final.pt", spoil(tensors)))


def test_files_without_weights(tmp_path: Path):
    torch.save({"model": {}}, tmp_path / "a.pt")
    with pytest.raises(ValueError, match=r"'weights': name -> tensor; found \['model'\]"):
        load_codec(tmp_path / "a.pt")
    torch.save(torch.zeros(3), tmp_path / "b.pt")
    with pytest.raises(ValueError, match="found Tensor"):
        load_codec(tmp_path / "b.pt")


class Mischief:
    """Would run a command when it is unpacked."""

    def __reduce__(self):
        return os.mkdir, ("/tmp/molmoact2-mischief",)


@pytest.mark.parametrize("content", [b"", b"no file of torch", b"PK\x03\x04" + bytes(40)])
def test_other_files(tmp_path: Path, content: bytes):
    (tmp_path / "a.pt").write_bytes(content)
    with pytest.raises(ValueError, match="not a file of tensors that torch can read safely"):
        load_codec(tmp_path / "a.pt")


def test_nothing_in_a_file_is_run(tmp_path: Path):
    torch.save({"weights": Mischief()}, tmp_path / "a.pt")
    with pytest.raises(ValueError, match="not a file of tensors that torch can read safely"):
        load_codec(tmp_path / "a.pt")
    assert not Path("/tmp/molmoact2-mischief").exists()
