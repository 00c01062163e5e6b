"""`--from` of the recipes for images: published weights with a new head, beside the same net from random weights."""

import json

import numpy as np
import pytest

from recipes import resnet, vit
from recipes.common import transfer
from zoo import build_resnet, load_export
from zoo.checks import BadInput
from zoo.image_weights import _torch_resnet_value

safetensors_numpy = pytest.importorskip("safetensors.numpy")
SMALL = ["--limit", "48", "--epochs", "2", "--batch-size", "16", "--image-size", "32", "32"]


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """A file like torchvision's of a ResNet-18 with random weights, for images in colour and 7 classes."""
    tensors, path = {}, tmp_path_factory.mktemp("published") / "resnet18.safetensors"
    for variable in build_resnet((32, 32, 3), 7, depth=18).weights:
        layer, _, kind = variable.path.rpartition("/")
        names, value = [], variable.numpy()
        _torch_resnet_value(
            variable, layer, kind, lambda name, names=names, value=value: names.append(name) or value, None
        )
        if kind == "kernel":
            value = value.transpose(3, 2, 0, 1) if value.ndim == 4 else value.T
        tensors[names[0]] = np.ascontiguousarray(value)
    safetensors_numpy.save_file(tensors, path)
    return path


def test_a_transfer_on_two_replicas_in_other_formats(published, tmp_path, monkeypatch):
    pytest.importorskip("onnxruntime")
    pytest.importorskip("tf2onnx")
    monkeypatch.setattr(transfer, "HEAD_SHARE", 1.0)
    arguments = ["--from", str(published), "--freeze", "4", "--replicas", "2", "--formats", "saved_model,onnx"]
    scores = resnet.main([*SMALL, "--epochs", "1", *arguments, *folders(tmp_path)])
    report = json.loads((tmp_path / "run/report.json").read_text())
    assert report["facts"]["devices"] == "2 x CPU"
    for kind in ("saved_model", "onnx"):
        row = report["formats"][kind]
        assert row["same"], row
        assert row["accuracy"] == scores["accuracy"]
        assert row["milliseconds"] > 0
        assert row["megabytes"] > 40  # 11 million numbers of 4 bytes.
    assert (tmp_path / "export/1/assets.extra/model.onnx").exists()
    answers = load_export(tmp_path / "export/1").signatures["serving_default"]
    assert answers.structured_outputs["probabilities"].shape == (None, 10)


def folders(tmp_path):
    return ["--run-dir", str(tmp_path / "run"), "--export-dir", str(tmp_path / "export")]


def test_a_transfer_is_compared_and_served_as_trained(published, tmp_path, capsys):
    """The digits are grey and 8x8; the published net is for larger images in colour."""
    scores = resnet.main([*SMALL, "--from", str(published), "--freeze", "3", *folders(tmp_path)])
    report = json.loads((tmp_path / "run/report.json").read_text())
    assert report["trained"] == scores
    assert report["served"]["accuracy"] == scores["accuracy"]
    transfer = report["transfer"]
    assert transfer["source"] == str(published)
    assert (transfer["frozen"], transfer["epochs"]) == (3, 1)
    assert 0 <= transfer["from_random_weights"]["accuracy"] <= 1
    rows = {
        part: len((tmp_path / "run" / part / "history.csv").read_text().splitlines()) - 1
        for part in (".", "head", "from-random-weights")
    }
    assert rows == {".": 2, "head": 1, "from-random-weights": 3}
    told = (tmp_path / "run/report.md").read_text()
    assert "## What the published weights bring" in told
    assert "the same as trained" in capsys.readouterr().out

    import tensorflow as tf

    exported = tf.saved_model.load(str(tmp_path / "export/1"))
    kernels = {tuple(np.asarray(v).ravel()[:4]) for v in exported.variables_ if len(v.shape) == 4}
    first = safetensors_numpy.load_file(published)["layer1.0.conv1.weight"].transpose(2, 3, 1, 0)
    assert tuple(first.ravel()[:4]) in kernels, "what is frozen is as it was"
    last = safetensors_numpy.load_file(published)["layer4.1.conv2.weight"].transpose(2, 3, 1, 0)
    assert tuple(last.ravel()[:4]) not in kernels, "the last stage has learned"


@pytest.mark.parametrize(
    ("recipe", "arguments", "told"),
    [
        (resnet, ["--from", "{}", "--freeze", "5"], "--freeze 5: a resnet has 4 stages"),
        (resnet, ["--from", "{}", "--tune", "2"], "--tune does not go with --from"),
        (vit, ["--freeze", "1"], "--freeze 1: there is nothing to keep without --from"),
        (resnet, ["--from", "{}", "--run-dir", "{}/.."], "which a new run sets aside"),
        (resnet, ["--from", "{}.safetensors"], "there is no such file"),
        (resnet, ["--from", "{}", "--image-size", "16", "16"], r"is too small.* Give an --image-size"),
        (vit, ["--from", "{}"], "these are the weights of a resnet; use python -m recipes.resnet"),
    ],
)
def test_what_does_not_go_with_published_weights(recipe, arguments, told, published, tmp_path):
    given = [argument.format(published) for argument in arguments]
    with pytest.raises(BadInput, match=told):
        recipe.main([*SMALL, *folders(tmp_path), *given])
    assert not (tmp_path / "export").exists()
