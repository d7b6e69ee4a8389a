"""Every kind of output comes back from the real engine, whole, attributed and verified."""

from __future__ import annotations

import hashlib
import json
import uuid
from pathlib import Path

import pytest

from tests.conftest import HELLO, WORKFLOWS, Cli


def unique(argument: str) -> tuple[str, str]:
    """An override that defeats ComfyUI's cache, so that the test renders and does not only fetch."""
    return "--set", f"{argument}={uuid.uuid4().int % 10**6}"


@pytest.mark.parametrize(
    ("workflow", "count", "kind", "media_type", "title"),
    [
        ("image", 1, "image", "image/png", "Save"),
        ("batch_preview", 3, "image", "image/png", "Save"),
        ("animated_webp", 1, "image", "image/webp", "Save"),
        ("animated_png", 1, "image", "image/png", "Save"),
        ("webm", 1, "video", "video/webm", "Save"),
        ("mp4", 1, "video", "video/mp4", "Save"),
        ("flac", 1, "audio", "audio/flac", "Save"),
        ("mp3", 1, "audio", "audio/mpeg", "Save"),
        ("opus", 1, "audio", "audio/ogg", "Save"),
        ("latent", 1, "latent", "application/octet-stream", "Save"),
    ],
)
def test_output_comes_back(cli: Cli, workflow: str, count: int, kind: str, media_type: str, title: str) -> None:
    done = cli("render", WORKFLOWS / f"{workflow}.json", "--json")

    assert done.code == 0, done.stderr
    assert done.json["status"] == "success"
    assert len(done.outputs) == count
    for output in done.outputs:
        path = Path(output["path"])
        assert (output["kind"], output["media_type"], output["title"]) == (kind, media_type, title)
        assert path.is_relative_to(cli.cwd / "outputs" / done.run["id"])
        assert path.stat().st_size == output["size_bytes"]
        assert hashlib.sha256(path.read_bytes()).hexdigest() == output["sha256"]


def test_text_comes_back_without_a_file(cli: Cli) -> None:
    done = cli("render", WORKFLOWS / "text.json", "--set", "Text.value=a dog", "--json")

    (text,) = done.json["data"]["texts"]
    assert done.code == 0
    assert (text["title"], text["text"]) == ("Show", "a dog, with a tail")
    assert done.outputs == []


def test_temporary_previews_come_back_when_asked_for(cli: Cli) -> None:
    done = cli("render", WORKFLOWS / "batch_preview.json", "--previews", "--json")

    assert sorted(output["title"] for output in done.outputs) == ["Preview"] * 3 + ["Save"] * 3


def test_outputs_of_one_name_do_not_overwrite_each_other(cli: Cli) -> None:
    done = cli("render", WORKFLOWS / "two_images.json", "--json")

    paths = {output["path"] for output in done.outputs}
    assert len(paths) == 2
    assert len({Path(path).read_bytes() for path in paths}) == 2


def test_hello_is_the_same_picture_for_the_same_seed(cli: Cli) -> None:
    first = cli("render", HELLO, "--set", "Mountains.seed=7", "--json")
    other = cli("render", HELLO, "--set", "Mountains.seed=8", "--json")
    again = cli("runs", "again", first.run["id"], "--json")

    assert (first.code, other.code, again.code) == (0, 0, 0)
    assert again.run["id"] != first.run["id"]
    assert again.outputs[0]["sha256"] == first.outputs[0]["sha256"] != other.outputs[0]["sha256"]


def test_a_real_sampler_reports_its_steps(cli: Cli) -> None:
    done = cli("render", WORKFLOWS / "tiny_txt2img.json", *unique("Sampler.seed"), "--json-events", timeout_s=300)

    lines = [json.loads(line) for line in done.stdout.splitlines()]
    steps = [(line["value"], line["max"]) for line in lines if line["type"] == "step"]
    assert done.code == 0, done.stderr
    assert steps[-1] == (4, 4)
    assert {"submitted", "prompt_queued", "prompt_started", "node", "prompt_done"} <= {line["type"] for line in lines}
    assert lines[-1]["type"] == "result"
    assert lines[-1]["data"]["outputs"][0]["media_type"] == "image/png"


def test_changing_only_the_text_changes_the_picture(cli: Cli) -> None:
    fixed = ("render", WORKFLOWS / "tiny_txt2img.json", "--set", "Sampler.seed=11", "--json")
    cat = cli(*fixed, "--set", "Positive.text=a cat astronaut")
    dog = cli(*fixed, "--set", "Positive.text=a dog astronaut")

    assert cat.json["data"]["changes"][-1]["new"] == "a cat astronaut"
    assert cat.outputs[0]["sha256"] != dog.outputs[0]["sha256"]


def test_local_file_is_uploaded(cli: Cli) -> None:
    picture = cli("render", WORKFLOWS / "image.json", *unique("Canvas.color"), "--json").outputs[0]["path"]
    done = cli("render", WORKFLOWS / "load_image.json", "--set", f"Photo.image={picture}", "--json")

    (change,) = done.json["data"]["changes"]
    assert done.code == 0, done.stderr
    assert change["new"] == f"comfymodal/{hashlib.sha256(Path(picture).read_bytes()).hexdigest()[:32]}.png"
    assert len(done.outputs) == 1


@pytest.mark.parametrize(
    ("source", "workflow", "override"),
    [
        ("image", "load_mask", "1.image"),
        ("flac", "load_audio", "1.audio"),
        ("mp4", "load_video", "1.file"),
    ],
)
def test_mask_audio_and_video_are_uploaded(cli: Cli, source: str, workflow: str, override: str) -> None:
    made = cli("render", WORKFLOWS / f"{source}.json", "--json").outputs[0]["path"]
    done = cli("render", WORKFLOWS / f"{workflow}.json", "--set", f"{override}=@{made}", "--json")

    assert done.code == 0, done.stderr
    assert done.outputs


def test_cached_rerun_still_yields_its_output(cli: Cli) -> None:
    override = unique("Canvas.color")
    first = cli("render", WORKFLOWS / "image.json", *override, "--json")
    second = cli("render", WORKFLOWS / "image.json", *override, "--json")

    assert (first.json["data"]["is_cached"], second.json["data"]["is_cached"]) == (False, True)
    assert second.outputs[0]["sha256"] == first.outputs[0]["sha256"]
    assert Path(second.outputs[0]["path"]).is_file()


def test_receipt_tells_how_to_render_the_same(cli: Cli) -> None:
    done = cli("render", WORKFLOWS / "tiny_txt2img.json", "--set", "Sampler.seed=random", "--json")

    receipt = json.loads(Path(done.json["data"]["receipt"]).read_text())
    (seed,) = receipt["seeds"].values()
    assert receipt["engine"]["comfyui_version"] == "0.3.75"
    assert receipt["models"] == ["tiny.ckpt"]
    assert receipt["overrides"][0]["new"] == seed
    assert receipt["outputs"][0]["sha256"] == done.outputs[0]["sha256"]
    assert receipt["workflow"]["sha256"] == hashlib.sha256((WORKFLOWS / "tiny_txt2img.json").read_bytes()).hexdigest()


def test_names_follow_the_template_and_out_is_used_as_it_is(cli: Cli) -> None:
    arguments = ("render", WORKFLOWS / "tiny_txt2img.json", "--out", "pictures", "--set", "Sampler.seed=5", "--json")
    done = cli(*arguments, "--name", "{workflow}/{seed}-{title}{ext}")
    repeated = cli(*arguments, "--name", "{workflow}/{seed}-{title}{ext}")

    path = cli.cwd / "pictures" / "tiny_txt2img" / "5-Save.png"
    assert done.outputs[0]["path"] == str(path)
    assert path.is_file()
    # The same bytes are not written twice under another name.
    assert repeated.outputs[0]["path"] == str(path)


def test_another_output_never_replaces_a_file_in_out(cli: Cli) -> None:
    for seed in ("5", "6"):
        cli(
            "render", WORKFLOWS / "tiny_txt2img.json", "--out", "p", "--name", "x{ext}", "--set", f"Sampler.seed={seed}"
        )

    assert sorted(path.name for path in (cli.cwd / "p").glob("*.png")) == ["x-2.png", "x.png"]
