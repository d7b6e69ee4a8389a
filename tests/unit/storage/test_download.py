"""Downloads against servers that speak as Hugging Face and Civitai do, and fail as networks do."""

from __future__ import annotations

import hashlib
import random
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from comfymodal.errors import CancelledError, NotFoundError, NotReadyError, ServiceError, TransferError
from comfymodal.storage.download import Download, Downloaded, Patience, Progress, Watch
from comfymodal.storage.model_source import Source, look_up, parse_source
from comfymodal.storage.web import TryAgainError
from tests.doubles.model_hub import TOKEN, ModelHub, model_hub

MIB = 1 << 20
CONTENT = random.Random(5).randbytes(3 * MIB + 17)
NAME = "owner/repo/loras/a.safetensors"
QUICK = Patience(pauses_s=(0.01, 0.01), timeout_s=1.0)


@pytest.fixture
def hub() -> Iterator[ModelHub]:
    with model_hub() as made:
        made.put(NAME, CONTENT)
        yield made


def environ(hub: ModelHub, token: str = "") -> dict[str, str]:
    return {"HF_ENDPOINT": hub.url, "CIVITAI_ENDPOINT": hub.url, "HF_TOKEN": token, "CIVITAI_TOKEN": token}


def download(
    hub: ModelHub, folder: Path, *, text: str = f"hf:{NAME}", token: str = "", hashes: dict[str, str] | None = None
) -> Download:
    source = parse_source(text, environ(hub, token))
    watch = Watch(lambda progress: None, lambda: False)
    access = source.access(environ(hub, token))
    return Download(source, folder / "a.safetensors", access, watch, hashes or {}, patience=QUICK)


def plain(hub: ModelHub, folder: Path, **more: object) -> Download:
    made = download(hub, folder, text=f"{hub.store_url}/{NAME}")
    return replace(made, **more)  # type: ignore[arg-type]


def check(done: Downloaded, folder: Path, content: bytes = CONTENT) -> None:
    assert done.file == folder / "a.safetensors.partial"
    assert done.file.read_bytes() == content
    assert done.sha256 == hashlib.sha256(content).hexdigest()
    # The final name is the caller's to give, and nothing else is left.
    assert sorted(path.name for path in folder.iterdir()) == ["a.safetensors.partial"]


def test_a_file_of_the_hub_comes_whole_and_is_checked_by_the_hash_it_told(hub: ModelHub, tmp_path: Path) -> None:
    seen: list[Progress] = []
    made = download(hub, tmp_path)
    done = replace(made, watch=Watch(seen.append, lambda: False)).run()

    check(done, tmp_path)
    assert (done.verified, done.resumed_from_bytes) == (True, 0)
    assert [each.done_bytes for each in seen] == sorted(each.done_bytes for each in seen)
    assert (seen[-1].done_bytes, seen[-1].total_bytes) == (len(CONTENT), len(CONTENT))


def test_the_token_reaches_the_hub_and_never_the_store_behind_it(hub: ModelHub, tmp_path: Path) -> None:
    hub.gated.add("owner/repo")
    check(download(hub, tmp_path, token=f"{TOKEN}\n").run(), tmp_path)

    # The store answers 400 to a token, so that it came through says the same.
    assert [each.headers.get("authorization") for each in hub.asked] == [f"Bearer {TOKEN}", None]


def test_without_a_token_a_gated_model_names_licence_token_and_variable(hub: ModelHub, tmp_path: Path) -> None:
    hub.gated.add("owner/repo")
    with pytest.raises(NotReadyError) as caught:
        download(hub, tmp_path).run()

    assert "Access to model owner/repo is restricted" in caught.value.message
    assert "there is no HF_TOKEN here" in caught.value.message
    assert f"{hub.url}/owner/repo" in str(caught.value.hint)
    assert "HF_TOKEN" in str(caught.value.hint)


def test_a_token_that_does_not_open_it_is_not_shown(hub: ModelHub, tmp_path: Path) -> None:
    hub.gated.add("owner/repo")
    with pytest.raises(NotReadyError) as caught:
        download(hub, tmp_path, token="hf_wrong").run()

    assert "the token in HF_TOKEN does not open it" in caught.value.message
    assert "hf_wrong" not in str(caught.value.to_dict())


def test_civitai_sends_to_its_login_page(hub: ModelHub, tmp_path: Path) -> None:
    hub.put_version(456, "a.safetensors", CONTENT)
    hub.gated.add("civitai/456")
    hub.is_login_page = True
    found = look_up(parse_source("civitai:456", environ(hub)), environ(hub))
    made = replace(download(hub, tmp_path, text="civitai:456"), source=found.source, hashes=found.hashes)
    with pytest.raises(NotReadyError, match="logged in"):
        made.run()

    opened = replace(made, access=found.source.access(environ(hub, TOKEN)))
    check(opened.run(), tmp_path)


def test_cut_lines_are_taken_up_where_they_broke(hub: ModelHub, tmp_path: Path) -> None:
    hub.faults = [("cut", MIB), ("cut", 5), ("cut", MIB), ("cut", 0)]
    done = download(hub, tmp_path).run()

    check(done, tmp_path)
    starts = [int(each.headers.get("range", "bytes=0-")[6:-1]) for each in hub.of_store()]
    assert starts == sorted(starts)
    assert starts[0] == 0
    assert starts[-1] >= 2 * MIB
    # Our own attempts are no earlier run.
    assert done.resumed_from_bytes == 0


def test_another_run_goes_on_at_its_byte(hub: ModelHub, tmp_path: Path) -> None:
    hub.faults = [("cut", 2 * MIB)] + [("cut", 0)] * 9
    with pytest.raises(ServiceError, match="did not come"):
        download(hub, tmp_path).run()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.safetensors.from.partial", "a.safetensors.partial"]
    kept = (tmp_path / "a.safetensors.partial").stat().st_size
    hub.faults = []
    hub.asked.clear()
    done = download(hub, tmp_path).run()

    check(done, tmp_path)
    assert kept >= MIB
    assert (done.resumed_from_bytes, done.verified) == (kept, True)
    assert hub.of_store()[0].headers["range"] == f"bytes={kept}-"


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"has_ranges": False}, id="no ranges"),
        pytest.param({"has_tags": False, "is_linked": False}, id="nothing tells whether it is the same"),
    ],
)
def test_a_server_that_cannot_go_on_is_asked_from_the_start(
    hub: ModelHub, tmp_path: Path, change: dict[str, bool]
) -> None:
    for name, value in change.items():
        setattr(hub, name, value)
    hub.faults = [("cut", 2 * MIB)]

    check(download(hub, tmp_path).run(), tmp_path)


@pytest.mark.parametrize("is_linked", [True, False], ids=["by its sha256", "by its etag"])
def test_a_file_that_changed_between_two_runs_starts_anew(hub: ModelHub, tmp_path: Path, is_linked: bool) -> None:
    hub.is_linked = is_linked
    hub.faults = [("cut", 2 * MIB)] + [("cut", 0)] * 9
    with pytest.raises(ServiceError):
        download(hub, tmp_path).run()
    other = CONTENT[::-1]
    hub.put(NAME, other)
    hub.faults = []
    done = download(hub, tmp_path).run()

    check(done, tmp_path, other)
    assert (done.resumed_from_bytes, done.verified) == (0, is_linked)


def test_a_stale_beginning_that_nobody_told_of_costs_one_more_download(hub: ModelHub, tmp_path: Path) -> None:
    sha256 = hashlib.sha256(CONTENT).hexdigest()
    made = plain(hub, tmp_path, hashes={"sha256": sha256})
    part = tmp_path / "a.safetensors.partial"
    hub.faults = [("cut", 2 * MIB)] + [("cut", 0)] * 9
    with pytest.raises(ServiceError):
        made.run()
    part.write_bytes(b"x" * part.stat().st_size)
    hub.faults = []
    done = plain(hub, tmp_path, hashes={"sha256": sha256}).run()

    check(done, tmp_path)
    assert done.verified


def test_a_wrong_file_is_not_kept(hub: ModelHub, tmp_path: Path) -> None:
    wrong = "0" * 64
    with pytest.raises(TransferError, match=f"expected was {wrong}") as caught:
        plain(hub, tmp_path, hashes={"sha256": wrong}).run()

    assert caught.value.exit_code == 5
    assert list(tmp_path.iterdir()) == []


def test_a_wrong_file_is_refused_before_a_byte_of_it_where_the_hub_tells_its_hash(
    hub: ModelHub, tmp_path: Path
) -> None:
    with pytest.raises(TransferError, match="not the file that was meant"):
        download(hub, tmp_path, hashes={"sha256": "0" * 64}).run()

    assert list(tmp_path.iterdir()) == []


def test_retry_after_is_waited_for(hub: ModelHub, tmp_path: Path) -> None:
    hub.hub_faults = [("status", (429, {"Retry-After": "1"}))]
    began = time.monotonic()
    check(download(hub, tmp_path).run(), tmp_path)

    assert time.monotonic() - began >= 1.0


def test_who_asks_to_come_back_tomorrow_is_not_waited_for(hub: ModelHub, tmp_path: Path) -> None:
    hub.hub_faults = [("status", (429, {"Retry-After": "86400"}))]
    with pytest.raises(ServiceError, match="wait 86400 s"):
        download(hub, tmp_path).run()


def test_short_trouble_is_waited_out_and_lasting_trouble_ends(hub: ModelHub, tmp_path: Path) -> None:
    hub.faults = [("status", (503, {})), ("status", (403, {}))]
    check(download(hub, tmp_path).run(), tmp_path)
    (tmp_path / "a.safetensors.partial").unlink()
    hub.faults = [("status", (500, {}))] * 9
    with pytest.raises(ServiceError, match="fault 500"):
        download(hub, tmp_path).run()


def test_a_server_that_always_cuts_and_has_no_ranges_does_not_keep_us_for_ever(hub: ModelHub, tmp_path: Path) -> None:
    hub.has_ranges = False
    hub.faults = [("cut", MIB)] * 50
    with pytest.raises(ServiceError, match="cut"):
        download(hub, tmp_path).run()

    assert len(hub.of_store()) < 10


def test_a_web_page_is_no_model(hub: ModelHub, tmp_path: Path) -> None:
    hub.faults = [("page", None)]
    with pytest.raises(ServiceError, match="a web page"):
        plain(hub, tmp_path).run()

    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_not_there_is_said_at_once(hub: ModelHub, tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="Entry not found"):
        download(hub, tmp_path, text="hf:owner/repo/loras/b.safetensors").run()

    assert len(hub.asked) == 1


def test_nobody_listens(tmp_path: Path, hub: ModelHub) -> None:
    made = download(hub, tmp_path)
    lonely = replace(made.source, url=made.source.url.replace(hub.url, "http://127.0.0.1:9"))
    with pytest.raises(ServiceError, match=r"cannot reach 127\.0\.0\.1:9"):
        replace(made, source=lonely).run()


def test_a_stop_keeps_what_has_come(hub: ModelHub, tmp_path: Path) -> None:
    seen: list[Progress] = []
    made = replace(download(hub, tmp_path), watch=Watch(seen.append, lambda: len(seen) > 1))
    with pytest.raises(CancelledError, match="are kept"):
        made.run()

    assert (tmp_path / "a.safetensors.partial").stat().st_size == 2 * MIB


def test_the_time_limit_keeps_what_has_come(hub: ModelHub, tmp_path: Path) -> None:
    made = replace(download(hub, tmp_path), watch=Watch(lambda progress: None, lambda: False, until=time.time() - 1))
    with pytest.raises(TransferError, match="the time was over"):
        made.run()

    assert (tmp_path / "a.safetensors.partial").stat().st_size == MIB


def test_a_download_of_another_source_does_not_go_on_with_it(hub: ModelHub, tmp_path: Path) -> None:
    (tmp_path / "a.safetensors.partial").write_bytes(b"of something else")

    assert download(hub, tmp_path).run().resumed_from_bytes == 0


def test_an_empty_file(hub: ModelHub, tmp_path: Path) -> None:
    hub.put(NAME, b"")
    check(download(hub, tmp_path).run(), tmp_path, b"")


def test_signatures_are_in_no_message(hub: ModelHub, tmp_path: Path) -> None:
    hub.faults = [("status", (500, {}))] * 9
    with pytest.raises(ServiceError) as caught:
        download(hub, tmp_path).run()

    assert "s3cretSignature" not in str(caught.value.to_dict())


def test_a_lookup_tells_size_and_hash(hub: ModelHub) -> None:
    found = look_up(parse_source(f"hf:{NAME}", environ(hub)), environ(hub))

    assert (found.name, found.size_bytes) == ("a.safetensors", len(CONTENT))
    assert found.hashes == {"sha256": hashlib.sha256(CONTENT).hexdigest()}


def test_a_lookup_that_may_work_later_says_so(hub: ModelHub) -> None:
    hub.hub_faults = [("status", (503, {"Retry-After": "7"}))]
    with pytest.raises(TryAgainError) as caught:
        look_up(parse_source(f"hf:{NAME}", environ(hub)), environ(hub))

    assert caught.value.after_s == 7.0


def test_a_source_crosses_as_json() -> None:
    source = parse_source("hf:o/r/x.safetensors", {})

    assert Source(**source.to_dict()) == source
