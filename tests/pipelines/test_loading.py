"""Loading by name or folder, saving, and what is said when it cannot be done."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from diffusers import DDIMScheduler, DiffusionPipeline, StableDiffusionPipeline
from safetensors.torch import load_file, save_file

import longvid.bundled
from longvid.bundled import bundled_models, component_folders
from longvid.pipelines.loading import LoadablePipeline
from toy_pipeline import SmallToyPipeline, ToyBase, ToyMixer, ToyPipeline, WiderToyMixer, tiny_components


@pytest.fixture(scope="module")
def pipe() -> ToyPipeline:
    return ToyPipeline(**tiny_components(), mixer=ToyMixer(), window_size=7, call_defaults={"num_inference_steps": 3})


@pytest.fixture(scope="module")
def saved(pipe: ToyPipeline, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saved") / "toy"
    pipe.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def shipped(saved: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle as it ships: weights in fp16, and two components stored beside the model that shares them."""
    root = tmp_path_factory.mktemp("bundled")
    shutil.copytree(saved, root / "toy-tiny")
    for part in ("vae", "tokenizer"):
        shutil.move(root / "toy-tiny" / part, root / "base-tiny" / part)
    (root / "toy-tiny" / "shared.json").write_text(json.dumps({p: f"../base-tiny/{p}" for p in ("vae", "tokenizer")}))
    for path in root.glob("*/*/*.safetensors"):
        save_file({name: tensor.half() for name, tensor in load_file(path).items()}, path, metadata={"format": "pt"})
    return root


@pytest.fixture
def bundle(shipped: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(longvid.bundled, "ROOT", shipped)
    return shipped


@pytest.fixture
def broken(saved: Path, tmp_path: Path) -> Path:
    """A copy to damage."""
    return Path(shutil.copytree(saved, tmp_path / "broken"))


def weights(pipeline: DiffusionPipeline) -> dict[str, torch.Tensor]:
    modules = {name: part for name, part in pipeline.components.items() if isinstance(part, torch.nn.Module)}
    return {f"{name}.{key}": tensor for name, part in modules.items() for key, tensor in part.state_dict().items()}


def assert_same_weights(one: DiffusionPipeline, other: DiffusionPipeline) -> None:
    ours, theirs = weights(one), weights(other)
    assert ours.keys() == theirs.keys()
    assert [
        key for key in ours if ours[key].dtype != theirs[key].dtype or not torch.equal(ours[key], theirs[key])
    ] == []


def dtypes(pipeline: DiffusionPipeline) -> set[torch.dtype]:
    return {tensor.dtype for tensor in weights(pipeline).values() if tensor.is_floating_point()}


def message_of(call, *args, **kwargs) -> str:
    with pytest.raises(ValueError) as caught:
        call(*args, **kwargs)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# --- round trips -----------------------------------------------------------------------------------------------------


def test_a_saved_pipeline_loads_bit_for_bit_and_saves_the_same_files_again(pipe, saved, tmp_path):
    loaded = ToyBase.from_pretrained(saved)
    assert type(loaded) is ToyPipeline
    assert_same_weights(loaded, pipe)
    assert (loaded.config.window_size, loaded.config.call_defaults) == (7, {"num_inference_steps": 3})
    assert not any(part.training for part in loaded.components.values() if isinstance(part, torch.nn.Module))
    loaded.save_pretrained(tmp_path)
    for path in saved.glob("*/*.safetensors"):
        assert path.read_bytes() == (tmp_path / path.relative_to(saved)).read_bytes(), path.name


def test_a_half_precision_variant_makes_the_round_trip(pipe, tmp_path):
    half = ToyPipeline(**{**tiny_components(seed=1), "mixer": ToyMixer()}).to(dtype=torch.float16)
    half.save_pretrained(tmp_path, variant="fp16")
    assert (tmp_path / "unet" / "diffusion_pytorch_model.fp16.safetensors").is_file()
    loaded = ToyBase.from_pretrained(tmp_path, variant="fp16", dtype=torch.float16)
    assert_same_weights(loaded, half)
    assert dtypes(ToyBase.from_pretrained(tmp_path, variant="fp16")) == {torch.float32}


def test_the_index_names_longvid_for_our_parts_and_diffusers_can_resolve_them(saved):
    index = json.loads((saved / "model_index.json").read_text())
    assert index["unet"] == ["longvid", "AnchoredUNet"]
    assert index["scheduler"] == ["longvid", "DPMPP2SAncestralScheduler"]
    assert index["vae"] == ["diffusers", "AutoencoderKL"]
    assert index["_class_name"] == "ToyPipeline"


def test_no_folder_of_longvid_is_called_like_a_pipeline_package_of_diffusers():
    import diffusers.pipelines

    folders = {path.name for path in Path(longvid.__file__).parent.rglob("*") if path.is_dir()}
    assert [name for name in folders if hasattr(diffusers.pipelines, name)] == []


# --- options ---------------------------------------------------------------------------------------------------------


def test_dtype_and_its_older_name_mean_the_same_and_float32_is_the_default(saved):
    assert dtypes(ToyPipeline.from_pretrained(saved)) == {torch.float32}
    assert dtypes(ToyPipeline.from_pretrained(saved, dtype=torch.bfloat16)) == {torch.bfloat16}
    assert dtypes(ToyPipeline.from_pretrained(saved, torch_dtype="float16")) == {torch.float16}
    mixed = ToyPipeline.from_pretrained(saved, dtype={"unet": torch.bfloat16, "default": torch.float16})
    assert (mixed.unet.dtype, mixed.vae.dtype, mixed.text_encoder.dtype) == (
        torch.bfloat16,
        torch.float16,
        torch.float16,
    )


def test_both_dtypes_at_once_and_what_is_no_dtype_are_refused(saved):
    both = message_of(ToyPipeline.from_pretrained, saved, dtype=torch.float16, torch_dtype=torch.float32)
    assert both.startswith("pass dtype or torch_dtype, not both")
    assert "got 'fp61'" in message_of(ToyPipeline.from_pretrained, saved, dtype="fp61")
    assert "got torch.int8" in message_of(ToyPipeline.from_pretrained, saved, dtype=torch.int8)


def test_components_and_constants_can_be_replaced_and_optional_ones_left_out(saved, tmp_path):
    scheduler, mixer = DDIMScheduler(), WiderToyMixer(width=6)
    loaded = ToyBase.from_pretrained(saved, scheduler=scheduler, mixer=mixer, window_size=9)
    assert loaded.scheduler is scheduler and loaded.mixer is mixer and loaded.config.window_size == 9
    without = ToyBase.from_pretrained(saved, mixer=None)
    assert without.mixer is None
    without.save_pretrained(tmp_path)
    assert not (tmp_path / "mixer").exists()
    assert ToyBase.from_pretrained(tmp_path).mixer is None


def test_device_map_and_subfolder_are_honoured(saved):
    assert ToyBase.from_pretrained(saved, device_map="cpu").device.type == "cpu"
    inner = ToyBase.from_pretrained(saved.parent, subfolder="toy")
    assert type(inner) is ToyPipeline
    assert "pass subfolder= for one of toy" in message_of(ToyBase.from_pretrained, saved.parent)


# --- bundled models --------------------------------------------------------------------------------------------------


def test_a_bundled_name_loads_half_precision_files_and_shared_parts_as_float32(bundle, pipe):
    assert bundled_models() == {"longvid/toy-tiny": bundle / "toy-tiny"}
    assert component_folders(bundle / "toy-tiny")["vae"] == bundle / "base-tiny" / "vae"
    assert component_folders(bundle / "toy-tiny")["unet"] == bundle / "toy-tiny" / "unet"
    loaded = ToyBase.from_pretrained("longvid/toy-tiny")
    assert dtypes(loaded) == {torch.float32}
    assert loaded.name_or_path == "longvid/toy-tiny"
    assert loaded.vae.config["_name_or_path"] == "longvid/toy-tiny/vae"
    expected = {key: tensor.half().float() for key, tensor in weights(pipe).items() if tensor.is_floating_point()}
    assert all(torch.equal(weights(loaded)[key], tensor) for key, tensor in expected.items())


def test_saving_a_bundled_model_writes_the_shared_parts_in_full_and_no_path_of_this_machine(bundle, tmp_path):
    loaded = ToyBase.from_pretrained("longvid/toy-tiny")
    loaded.save_pretrained(tmp_path)
    assert not (tmp_path / "shared.json").exists()
    assert (tmp_path / "vae" / "diffusion_pytorch_model.safetensors").is_file()
    assert_same_weights(ToyPipeline.from_pretrained(tmp_path), loaded)
    written = "".join(path.read_text() for path in tmp_path.rglob("*.json"))
    assert str(bundle) not in written and "longvid-" not in written


def test_shared_parts_may_only_lie_beside_the_model(bundle, tmp_path):
    folder = Path(shutil.copytree(bundle / "toy-tiny", tmp_path / "models" / "toy"))
    (folder / "shared.json").write_text(json.dumps({"vae": "../../elsewhere"}))
    (tmp_path / "elsewhere").mkdir()
    assert "'vae' must be a folder below" in message_of(ToyBase.from_pretrained, folder)


def test_a_component_may_hold_only_what_was_added_to_another(bundle, tmp_path):
    folder = Path(shutil.copytree(bundle, tmp_path / "models"))
    whole = weights(ToyBase.from_pretrained(folder / "toy-tiny"))
    own, name = folder / "toy-tiny" / "unet", "diffusion_pytorch_model.safetensors"
    tensors = load_file(own / name)
    added = sorted(tensors)[::2]
    (folder / "base-tiny" / "unet").mkdir()
    for place, keys in ((own, added), (folder / "base-tiny" / "unet", tensors.keys() - set(added))):
        save_file({key: tensors[key] for key in keys}, place / name)
    shared = json.loads((folder / "toy-tiny" / "shared.json").read_text())
    (folder / "toy-tiny" / "shared.json").write_text(json.dumps(shared | {"unet": {"adds_to": "../base-tiny/unet"}}))
    joined = weights(ToyBase.from_pretrained(folder / "toy-tiny"))
    assert joined.keys() == whole.keys() and all(torch.equal(joined[key], whole[key]) for key in whole)
    (folder / "base-tiny" / "unet" / name).write_bytes(b"cut off")
    assert f"base-tiny/unet/{name} is damaged" in message_of(ToyBase.from_pretrained, folder / "toy-tiny")


# --- what cannot be loaded -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("typo", ["longvid/toy-tinny", "toy-tiny", "Longvid/toy_tiny/", "toytiny"])
def test_a_misspelt_bundled_name_gets_the_nearest_one(bundle, typo):
    said = message_of(ToyBase.from_pretrained, typo)
    assert "did you mean 'longvid/toy-tiny'?" in said and "bundled models: longvid/toy-tiny" in said


def test_a_misspelt_folder_gets_the_nearest_folder_that_holds_a_pipeline(saved, monkeypatch):
    assert f"did you mean '{saved}'?" in message_of(ToyBase.from_pretrained, f"{saved}y")
    monkeypatch.chdir(saved.parent)
    assert "did you mean 'toy'?" in message_of(ToyBase.from_pretrained, "./toyy")


def test_a_file_and_a_folder_without_a_pipeline_are_refused(saved):
    assert "is a file; expected a pipeline folder" in message_of(ToyBase.from_pretrained, saved / "model_index.json")
    assert "is not a pipeline folder" in message_of(ToyBase.from_pretrained, saved / "vae")


@pytest.mark.parametrize("part", ["unet/diffusion_pytorch_model.safetensors", "text_encoder/model.safetensors"])
def test_a_truncated_or_overwritten_weight_file_is_named(broken, part):
    path = broken / part
    whole = path.read_bytes()
    for content, reason in [
        (whole[:-100], "promises"),
        (whole[:5], "truncated"),
        (b"\xff" * len(whole), "truncated, or not a safetensors file"),
        (whole[:8] + b"#" * (len(whole) - 8), "header cannot be read"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
    ]:
        path.write_bytes(content)
        said = message_of(ToyBase.from_pretrained, broken)
        assert f"{path} is damaged" in said and reason in said


def test_damaged_settings_and_missing_parts_are_named(broken):
    (broken / "unet" / "config.json").write_text('{"in_channels": 4,')
    assert f"{broken / 'unet' / 'config.json'} is damaged: it is not valid JSON" in message_of(
        ToyBase.from_pretrained, broken
    )
    shutil.rmtree(broken / "unet")
    assert "has no unet/, which its model_index.json names" in message_of(ToyBase.from_pretrained, broken)
    (broken / "model_index.json").write_text("{")
    assert f"{broken / 'model_index.json'} is damaged" in message_of(ToyBase.from_pretrained, broken)


def test_a_weight_file_that_lacks_tensors_is_refused_instead_of_giving_empty_weights(broken):
    path = broken / "mixer" / "diffusion_pytorch_model.safetensors"
    state = load_file(path)
    del state["linear.bias"]
    save_file(state, path, metadata={"format": "pt"})
    assert "mixer: its file lacks 1 of 2 tensors, e.g. linear.bias" in message_of(ToyBase.from_pretrained, broken)


def test_a_folder_of_another_kind_of_pipeline_is_refused_with_what_longvid_provides(pipe, saved, tmp_path):
    stock = StableDiffusionPipeline(
        **{name: pipe.components[name] for name in ("vae", "text_encoder", "tokenizer", "unet")},
        scheduler=DDIMScheduler(steps_offset=1, clip_sample=False),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    stock.save_pretrained(tmp_path)
    said = message_of(ToyBase.from_pretrained, tmp_path)
    assert "is a StableDiffusionPipeline; longvid provides ARTVPipeline" in said and "ToyPipeline" in said
    assert "is a ToyPipeline, not a SmallToyPipeline" in message_of(SmallToyPipeline.from_pretrained, saved)
    assert type(ToyPipeline.from_pretrained(tmp_path)) is ToyPipeline  # a stock folder with all parts is welcome
    index = json.loads((tmp_path / "model_index.json").read_text())
    del index["vae"]
    (tmp_path / "model_index.json").write_text(json.dumps(index))
    assert "without the vae of a ToyPipeline" in message_of(ToyPipeline.from_pretrained, tmp_path)


# --- from_pipe -------------------------------------------------------------------------------------------------------


def test_from_pipe_shares_the_modules_and_keeps_every_dtype():
    pipe = ToyPipeline(**tiny_components(), mixer=WiderToyMixer(), window_size=5)
    pipe.unet.to(torch.bfloat16)
    twin = ToyPipeline.from_pipe(pipe)
    assert all(twin.components[name] is part for name, part in pipe.components.items())
    assert (twin.unet.dtype, twin.vae.dtype, twin.config.window_size) == (torch.bfloat16, torch.float32, 5)
    cast = ToyPipeline.from_pipe(pipe, dtype=torch.float16, window_size=6)
    assert dtypes(cast) == {torch.float16} and cast.config.window_size == 6


def test_from_pipe_goes_to_another_class_and_back_with_its_constants():
    pipe = ToyPipeline(**tiny_components(), window_size=5)
    small = SmallToyPipeline.from_pipe(pipe)
    assert small.vae is pipe.vae and small.config.overlap == 1
    rest = {name: pipe.components[name] for name in ("text_encoder", "tokenizer", "unet")}
    back = ToyPipeline.from_pipe(small, **rest)
    assert back.config.window_size == 5
    assert "has no text_encoder, tokenizer, unet" in message_of(ToyPipeline.from_pipe, small)


# --- the package -----------------------------------------------------------------------------------------------------


def test_every_subclass_is_known_and_only_those_that_name_components_can_be_built():
    assert ToyBase._is_base() and LoadablePipeline._is_base() and not ToyPipeline._is_base()
