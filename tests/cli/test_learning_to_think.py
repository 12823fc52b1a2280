"""From a recording to a policy that thinks, by the commands a user gives."""

from pathlib import Path

import numpy as np
import pytest

from molmoact2.cli.main import main
from molmoact2.data import open_dataset
from molmoact2.depth.codec import fingerprint, load_codec
from molmoact2.inference import load_policy
from molmoact2.types import Observation


@pytest.mark.slow
def test_a_plain_policy_learns_to_think(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.chdir(tmp_path)
    main(["record", "--output", "cubes", "--tasks", "pick", "--episodes", "3", "--workers", "1"])
    codec = ["--source", "simulator", "--low", "0.25", "--high", "0.8", "--steps", "3", "--hold-out", "3"]
    main(["depth", "fit", "cubes", *codec, "--output", "codec"])
    main(["depth", "label", "cubes", "--codec", "codec", "--source", "simulator"])
    learn = ["finetune", "cubes", "--checkpoint", "nano-so101", "--steps", "4", "--batch", "4", "--no-report"]
    main([*learn, "--depth-labels", "cubes_depth", "--output", "thinks"])

    policy, frame = load_policy("thinks/checkpoint"), open_dataset("cubes").frame(0)
    assert policy.can_think
    assert policy.depth_codec is not None
    assert fingerprint(policy.depth_codec) == fingerprint(load_codec("codec"))
    observation = Observation(images=frame.images, state=frame.state, instruction=frame.task)
    assert policy.act(observation, seed=0).depth is None
    monkeypatch.setattr("molmoact2.inference.depth_map.DepthMaps.are_ended", lambda _maps: True)  # learned in 4 steps?
    depth = policy.act(observation, seed=0, think=True).depth
    assert depth is not None
    assert depth.codes.shape == (100,)
    assert depth.gates is not None
    np.testing.assert_allclose(depth.gates, 0.018, atol=0.002)
    assert depth.preview is not None
    assert depth.preview.shape == (320, 320, 3)

    with pytest.raises(SystemExit):
        main(["evaluate", "--policy", "nano-so101", "--think", "--episodes", "1", "--output", "measured"])
    assert "was not trained to think" in capsys.readouterr().err
