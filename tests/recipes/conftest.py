"""What several tests of the recipes share."""

import pytest
import requests
import tensorflow_datasets as tfds


@pytest.fixture
def nothing_prepared(tmp_path, monkeypatch):
    """An empty TFDS folder; no test that takes it may ask the network."""
    folder = tmp_path / "nothing"
    folder.mkdir()
    monkeypatch.setattr(tfds.core.constants, "DATA_DIR", str(folder))
    monkeypatch.setattr(requests, "head", lambda *args, **options: pytest.fail("the network was asked"))
    monkeypatch.setattr(tfds.core.DatasetBuilder, "download_and_prepare", lambda self: pytest.fail("TFDS was asked"))
    yield folder
    assert not list(folder.iterdir())
