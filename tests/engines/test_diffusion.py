"""Images in this process: the engine on diffusers, with a pipeline that the test makes, beside diffusers itself."""

import gc
import io
import json
import logging
import shutil
import sys
import threading
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hf_gateway import ImageGateway, Target, errors
from hf_gateway.engines import open_image_engine, require_image_engine, sources
from hf_gateway.engines.sources import ModelFiles
from hf_gateway.values.image import ImageRequest, file_type
from tests.servers.router import FakeHub, HubModel
from tests.support.image_callers import FORMS, ImageCaller
from tests.support.late import COLLECTED
from tests.support.tiny_images import MAX_TOKENS, SIDE_PIXELS, pipeline

if COLLECTED:
    import torch
    from diffusers import StableDiffusionPipeline
    from diffusers.utils import logging as diffusers_logging
    from PIL import Image
    from transformers.utils import logging as transformers_logging

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("torch")]

PROMPT = "a red cat on the moon"
FEW = 2
"""Steps."""


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    """Compute in one thread: for models as small as these, threads mostly wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pipeline(tmp_path_factory.mktemp("images") / "tiny")


@pytest.fixture(params=FORMS)
def form(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def pixels(data: bytes) -> Any:
    with Image.open(io.BytesIO(data)) as image:
        return image.convert("RGB").size, image.convert("RGB").tobytes()


def local(model: Path, form: str = "sync", **settings: Any) -> ImageCaller:
    return ImageCaller(form, ["local"], model=str(model), steps=FEW, timeout=600.0, attempt_timeout=300.0, **settings)


class TestBesideDiffusers:
    @pytest.mark.parametrize(
        ("ours", "theirs"),
        [
            ({}, {}),
            (
                {"negative_prompt": "a dog", "guidance_scale": 2.5, "width": 48, "height": 32, "steps": 3},
                {
                    "negative_prompt": "a dog",
                    "guidance_scale": 2.5,
                    "width": 48,
                    "height": 32,
                    "num_inference_steps": 3,
                },
            ),
        ],
        ids=["the model's own settings", "all settings"],
    )
    def test_the_image_is_the_one_that_diffusers_makes(
        self, model: Path, ours: dict[str, Any], theirs: dict[str, Any]
    ) -> None:
        result = local(model).generate(PROMPT, seed=3, **ours)
        direct = StableDiffusionPipeline.from_pretrained(str(model), use_safetensors=True)
        direct.set_progress_bar_config(disable=True)
        generator = torch.Generator("cpu").manual_seed(3)
        (made,) = direct(PROMPT, generator=generator, **{"num_inference_steps": FEW, **theirs}).images
        assert pixels(result[0].data) == (made.size, made.tobytes())
        assert len(set(made.tobytes())) > 16


class TestSeeds:
    def test_images_have_the_seeds_from_the_first_on_and_are_the_same_alone(self, model: Path, form: str) -> None:
        call = local(model, form)
        result = call.generate(PROMPT, n=2, seed=5)
        assert [image.seed for image in result] == [5, 6]
        assert call.generate(PROMPT, seed=6)[0].data == result[1].data != result[0].data
        assert (result.usage.images, result.mime, file_type(result[0].data)) == (2, "image/png", "image/png")
        assert result.usage.seconds is not None
        assert pixels(result[0].data)[0] == (SIDE_PIXELS, SIDE_PIXELS)

    def test_a_seed_that_was_chosen_here_makes_the_same_image_again(self, model: Path) -> None:
        call = local(model)
        first = call.generate(PROMPT)
        assert first.seed is not None
        assert call.generate(PROMPT, seed=first.seed)[0].data == first[0].data


class TestRefusals:
    def test_a_prompt_that_is_too_long_is_an_overflow_unless_it_may_be_truncated(
        self, model: Path, form: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        long = " ".join(["a cat on the moon"] * 9)
        with pytest.raises(errors.ContextOverflow, match=f"reads {MAX_TOKENS}") as caught:
            local(model, form).generate(long)
        assert caught.value.limit == MAX_TOKENS < (caught.value.length or 0)
        caplog.set_level(logging.DEBUG)
        local(model, form, truncate=True).generate(long)
        assert "moon" not in caplog.text

    def test_a_size_that_the_model_cannot_make_goes_to_the_next_target(self, model: Path) -> None:
        with pytest.raises(errors.Unsupported, match="divisible by 8"):
            local(model).generate(PROMPT, width=33, height=33)

    def test_code_in_a_repository_is_never_run(self, model: Path, tmp_path: Path) -> None:
        target = Target("local", model=str(model), options={"trust_remote_code": True})
        with pytest.raises(errors.ConfigError, match="trust_remote_code"):
            ImageGateway(targets=[target]).generate(PROMPT)
        copied = Path(shutil.copytree(model, tmp_path / "custom"))
        (copied / "mine.py").write_text("raise SystemExit('this code was run')\n")
        listed = json.loads((copied / "model_index.json").read_text())
        (copied / "model_index.json").write_text(json.dumps({**listed, "_class_name": ["mine", "Mine"]}))
        with pytest.raises(errors.EngineFailed, match="cannot be loaded"):
            local(copied).generate(PROMPT)

    def test_pickles_are_not_loaded(self, tmp_path: Path) -> None:
        pickled = pipeline(tmp_path / "pickled", safe=False)
        assert list(pickled.rglob("*.bin"))
        with pytest.raises(errors.EngineFailed, match="cannot be loaded"):
            local(pickled).generate(PROMPT)

    def test_a_folder_without_a_model_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(errors.ConfigError, match=r"model_index\.json"):
            local(tmp_path).generate(PROMPT)

    def test_a_text_encoder_alone_is_no_pipeline(self, model: Path) -> None:
        with pytest.raises(errors.EngineFailed):
            local(model / "text_encoder").generate(PROMPT)

    def test_without_diffusers_the_error_names_the_extra(self, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "diffusers", None)
        with pytest.raises(errors.EngineMissing, match=r"pip install 'hf-gateway\[images\]'"):
            require_image_engine()
        (check,) = local(model).gateway.check()
        assert not check.answers
        assert "hf-gateway[images]" in (check.error or "")


class TestLife:
    def test_the_libraries_logs_are_as_before_after_images_of_several_threads(self, model: Path) -> None:
        before = diffusers_logging.get_verbosity(), transformers_logging.get_verbosity()
        engines = [open_image_engine(ModelFiles(model, "path"), {}, name) for name in ("one", "two")]
        threads = [
            threading.Thread(target=engine.draw, args=(ImageRequest(PROMPT, steps=2),))
            for engine in engines
            for _ in "ab"
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert (diffusers_logging.get_verbosity(), transformers_logging.get_verbosity()) == before

    def test_a_model_is_loaded_once_and_released_with_its_last_user(self, model: Path) -> None:
        files = ModelFiles(model, "path")
        engine = open_image_engine(files, {"device": "cpu"}, "tiny")
        assert open_image_engine(files, {"device": "cpu"}, "tiny") is engine
        assert (engine.name, engine.device) == ("diffusers", "cpu")
        assert engine.draw(ImageRequest(PROMPT, steps=1)).model == "tiny"
        gone = weakref.ref(engine)
        del engine
        gc.collect()
        assert gone() is None

    def test_check_finds_the_model_and_loads_nothing(self, model: Path) -> None:
        call = local(model)
        (check,) = call.gateway.check()
        assert check.answers
        assert "on this machine" in check.report.detail
        call.gateway.close()


class TestFiles:
    def test_a_pipeline_is_downloaded_without_what_it_does_not_need(
        self, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        hosted = Path(shutil.copytree(model, tmp_path / "hosted"))
        for extra in (
            "unet/diffusion_pytorch_model.fp16.safetensors",
            "all-in-one.safetensors",
            "unet/diffusion_pytorch_model.bin",
            "vae/mine.py",
        ):
            (hosted / extra).write_bytes(b"not wanted")
        monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
        with FakeHub(models={"test/pipeline": HubModel(hosted, library_name="diffusers")}) as hub:
            monkeypatch.setenv("HF_ENDPOINT", hub.url)
            call = ImageCaller("sync", ["local"], model="test/pipeline", steps=FEW)
            (check,) = call.gateway.check()
            assert "not on this machine yet" in check.report.detail
            assert call.generate(PROMPT, seed=1)[0].data == local(model).generate(PROMPT, seed=1)[0].data
            asked = len(hub.requests)
            files = sources.fetch("test/pipeline", None, None, weights="pipeline")
            assert len(hub.requests) == asked
        found = {path.relative_to(files.path).as_posix() for path in files.path.rglob("*") if path.is_file()}
        assert found == {path.relative_to(model).as_posix() for path in model.rglob("*") if path.is_file()}

    @pytest.mark.parametrize("lost", ["unet/diffusion_pytorch_model.safetensors", "text_encoder/model.safetensors"])
    def test_a_pipeline_without_a_models_weights_is_not_complete(self, model: Path, tmp_path: Path, lost: str) -> None:
        copied = Path(shutil.copytree(model, tmp_path / "copied"))
        assert sources.is_complete(ModelFiles(copied, "cache"), "pipeline")
        (copied / lost).unlink()
        assert not sources.is_complete(ModelFiles(copied, "cache"), "pipeline")
