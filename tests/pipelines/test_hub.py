"""Loading from and pushing to a model hub, played by a stand-in on loopback."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from hub_stand_in import HubStandIn
from longvid import ARTVPipeline
from toy_pipeline import tiny_components, tiny_unet

TESTS = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def pipe() -> ARTVPipeline:
    return ARTVPipeline(**tiny_components(), mask_network=tiny_unet(out_channels=1))


@pytest.fixture(scope="module")
def older() -> ARTVPipeline:
    return ARTVPipeline(**tiny_components(seed=1), mask_network=tiny_unet(out_channels=1))


@pytest.fixture(scope="module")
def root(pipe: ARTVPipeline, older: ARTVPipeline, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The repositories: <owner>/<name>/<revision>."""
    root = tmp_path_factory.mktemp("hub")
    tiny = root / "toys" / "tiny"
    pipe.save_pretrained(tiny / "main")
    for repo in ("many/main/inner", "secret/main", "truncated/main", "stock/main"):
        shutil.copytree(tiny / "main", root / "toys" / repo)
    older.save_pretrained(tiny / "older")
    pipe.save_pretrained(tiny / "main", variant="fp16")
    weights = root / "toys" / "truncated" / "main" / "unet" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    index = root / "toys" / "stock" / "main" / "model_index.json"
    index.write_text(index.read_text().replace('"ARTVPipeline"', '"StableDiffusionPipeline"'))
    return root


@pytest.fixture(scope="module")
def hub(root: Path):
    with HubStandIn(root, private={"toys/secret": "hf_key"}) as hub:
        yield hub


@pytest.fixture(scope="module")
def answers(hub: HubStandIn, root: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict, dict]:
    """What one client process saw while the hub was there, and after it was gone."""
    home = tmp_path_factory.mktemp("home")
    kept = {name: value for name, value in os.environ.items() if "proxy" not in name.lower()}
    settings = {"HF_HOME": str(home), "HF_ENDPOINT": hub.endpoint, "HF_HUB_DISABLE_XET": "1", "HF_HUB_OFFLINE": "0"}
    settings["PYTHONPATH"] = os.pathsep.join([str(TESTS.parent / "src"), str(TESTS), kept.get("PYTHONPATH", "")])
    command = [sys.executable, str(TESTS / "hub_client.py"), str(root / "toys" / "tiny" / "main")]
    with (home / "log").open("w+") as log:
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": log, "text": True}
        with subprocess.Popen(command, env=kept | settings, **pipes) as client:
            online = client.stdout.readline()
            hub.stop()
            offline, _ = client.communicate("\n", timeout=120)
        assert client.returncode == 0, (home / "log").read_text()
    return json.loads(online), json.loads(offline)


@pytest.fixture(scope="module")
def online(answers: tuple[dict, dict]) -> dict[str, dict]:
    return answers[0]


@pytest.fixture(scope="module")
def offline(answers: tuple[dict, dict]) -> dict[str, dict]:
    return answers[1]


@pytest.mark.parametrize("how", ["by_id", "cached", "device_map", "subfolder", "token", "pushed"])
def test_a_hub_id_loads_the_same_pipeline_as_its_folder(online, pipe, how):
    assert online[how].get("class") == "ARTVPipeline", online[how]
    assert online[how]["fingerprint"] == pipe.fingerprint()
    assert online[how]["dtypes"] == ["torch.float32"]
    assert "/tmp" not in online[how]["source"]


def test_variant_revision_and_replaced_components_are_honoured(online, pipe, older, hub):
    assert online["variant"].get("dtypes") == ["torch.float16"], online["variant"]
    fetched = [path for _, path, _ in hub.asked if path.startswith("/toys/tiny/resolve")]
    assert any("model.fp16.safetensors" in path for path in fetched)
    assert online["revision"]["fingerprint"] == older.fingerprint() != pipe.fingerprint()
    assert not online["override"]["has_mask"] and online["by_id"]["has_mask"]


def test_the_token_goes_to_the_hub_and_a_push_arrives_there_whole(online, hub, pipe):
    assert ("POST", "/api/models/me/pushed/commit/main", "hf_key") in hub.asked
    assert any("/toys/secret/" in path and token == "hf_key" for _, path, token in hub.asked)
    pushed = ARTVPipeline.from_pretrained(hub.root / "me" / "pushed" / "main")
    assert pushed.fingerprint() == pipe.fingerprint()


@pytest.mark.parametrize(
    ("attempt", "words"),
    [
        ("no_token", "the hub has no such repository (or it is private: pass token="),
        ("no_repository", "unknown model 'toys/nothing'"),
        ("no_revision", "'toys/tiny' has no such revision"),
        ("no_index", "has no model_index.json"),
        ("no_subfolder", "'toys/many' has no folder 'outer'"),
        ("no_variant", "`variant=bf16`"),
        ("not_cached", "the hub cache does not hold it"),
        ("truncated", "diffusion_pytorch_model.safetensors is damaged: its header promises"),
        ("stock", "is a StableDiffusionPipeline; longvid provides ARTVPipeline"),
    ],
)
def test_what_the_hub_cannot_give_is_a_value_error_of_one_line(online, attempt, words):
    assert online[attempt].get("error") == "ValueError", online[attempt]
    assert words in online[attempt]["message"] and "\n" not in online[attempt]["message"]


def test_without_a_connection_cached_models_and_folders_load_and_the_rest_says_what_to_do(offline, pipe):
    assert offline["cached"].get("fingerprint") == offline["folder"].get("fingerprint") == pipe.fingerprint(), offline
    assert offline["not_cached"]["error"] == "ValueError", offline["not_cached"]
    said = offline["not_cached"]["message"]
    assert "the hub cannot be reached" in said and "HF_HUB_OFFLINE" in said and "local folder" in said
    assert "\n" not in said
    assert offline["not_cached"]["seconds"] < 20  # it does not try again and again
