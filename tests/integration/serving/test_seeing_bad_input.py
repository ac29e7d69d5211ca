"""Whatever strangers send instead of a photo: a clear answer, bounded memory, never the server's fault."""

from __future__ import annotations

import hashlib
import io
import pathlib
import shutil
import struct
import tracemalloc
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from PIL import Image, ImageCms
from starlette.testclient import TestClient

from contracts import visual as names
from serving.releases import ReleaseError, open_release
from tests.integration.serving import seeing
from tests.integration.serving.conftest import Shop, serving
from tests.integration.serving.seeing import archive, encoded, scene

WHOLE = scene({0: 5, 3: 8}, 400)


@pytest.fixture(scope="module")
def client(seer: Shop) -> Iterator[TestClient]:
    with serving(seer) as (client, _):
        yield client


def png(width: int, height: int, depth: int = 8, colour: int = 2, data: bytes = b"") -> bytes:
    """A PNG by hand, so that its header can promise what its data does not hold."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        body = kind + content
        return struct.pack(">I", len(content)) + body + struct.pack(">I", zlib.crc32(body))

    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    parts = (chunk(b"IHDR", header), chunk(b"IDAT", data or zlib.compress(b"\0" * 64)), chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def jpeg_of_size(width: int, height: int) -> bytes:
    """A JPEG whose header is changed to promise another size."""
    content = bytearray(encoded(WHOLE))
    place = content.index(b"\xff\xc0")
    content[place + 5 : place + 9] = struct.pack(">HH", height, width)
    return bytes(content)


def many_scans(count: int) -> bytes:
    """A progressive JPEG whose last scan is there over and over."""
    content = encoded(WHOLE, progressive=True)
    place = content.rindex(b"\xff\xda")
    return content[:place] + content[place:-2] * count + content[-2:]


BOMB = png(30_000, 30_000, data=zlib.compress(b"\0" * 10_000_000))
BAD: dict[str, tuple[bytes, int, str]] = {
    "nothing": (b"", 422, "empty"),
    "text": (b"this is not a picture", 415, "not a picture"),
    "HTML": (b"<html><img src=x></html>", 415, "not a picture"),
    "SVG": (b"<svg xmlns='http://www.w3.org/2000/svg'/>", 415, "not a picture"),
    "PDF": (b"%PDF-1.7\n" + b"0" * 100, 415, "not a picture"),
    "zeros": (bytes(5000), 415, "not a picture"),
    "HEIC": (b"\0\0\0\x18ftypheic\0\0\0\0heicmif1" + bytes(200), 415, "HEIC"),
    "a truncated JPEG": (encoded(WHOLE)[:3000], 422, "damaged"),
    "half a PNG": (encoded(WHOLE, "PNG")[:600], 422, "damaged"),
    "a truncated WebP": (encoded(WHOLE, "WEBP")[:800], 422, "damaged"),
    "JPEG's first bytes": (b"\xff\xd8\xff\xe0", 422, "damaged"),
    "1x1": (encoded(Image.new("RGB", (1, 1))), 422, "1 x 1"),
    "20,000x20": (encoded(Image.new("RGB", (20_000, 20)), "PNG"), 422, "20 times"),
    "20x20,000 JPEG": (encoded(Image.new("RGB", (20, 20_000))), 422, "20 times"),
    "a bomb": (BOMB, 413, "pixels"),
    "a tall JPEG by its header": (jpeg_of_size(60_000, 60_000), 413, "pixels"),
    "a large PNG": (png(8_000, 8_000), 413, "8,000 x 8,000"),
    "a PNG without data": (png(500, 500), 422, "damaged"),
    "a wrong checksum": (encoded(WHOLE, "PNG").replace(b"IDAT", b"IDAX", 1), 422, "damaged"),
    "a JPEG of a thousand scans": (many_scans(1_000), 422, "scans"),
    "TIFF": (encoded(WHOLE, "TIFF"), 415, "JPEG"),
    "BMP": (encoded(WHOLE, "BMP"), 415, "JPEG"),
}  # fmt: skip


def search(client: Any, content: bytes) -> Any:
    return client.post("/v1/search/image", content=content, headers={"content-type": "image/jpeg"})


@pytest.mark.parametrize("case", list(BAD))
def test_what_is_no_usable_picture_is_refused_in_words(client: TestClient, case: str) -> None:
    content, status, words = BAD[case]
    tracemalloc.start()
    response = search(client, content)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert response.status_code == status, response.text[:300]
    assert response.headers["content-type"] == "application/problem+json"
    assert words in response.json()["detail"], response.json()
    assert peak < 3 * len(content) + (32 << 20)


def variants() -> dict[str, bytes]:
    cmyk = WHOLE.convert("CMYK")
    deep = np.asarray(WHOLE.convert("L")).astype(np.uint16) * 257
    seen = WHOLE.convert("RGBA")
    seen.putalpha(Image.fromarray((np.asarray(WHOLE).min(axis=2) < 240).astype(np.uint8) * 255))
    clear = np.asarray(seen).copy()
    clear[clear[..., 3] == 0] = (0, 0, 0, 0)
    turned = Image.Exif()
    turned[0x0112] = 6
    frames = [WHOLE, Image.new("RGB", WHOLE.size, (0, 0, 0))]
    animated = {
        kind: encoded(frames[0], kind, save_all=True, append_images=frames[1:], lossless=True)
        if kind == "WEBP"
        else encoded(frames[0], kind, save_all=True, append_images=frames[1:])
        for kind in ("GIF", "WEBP", "PNG")
    }
    return {
        "PNG": encoded(WHOLE, "PNG"),
        "WebP": encoded(WHOLE, "WEBP"),
        "progressive JPEG": encoded(WHOLE, progressive=True),
        "CMYK JPEG": encoded(cmyk),
        "a palette": encoded(WHOLE.convert("P", palette=Image.Palette.ADAPTIVE), "PNG"),
        "transparent, black below": encoded(Image.fromarray(clear), "PNG"),
        "16-bit": encoded(Image.fromarray(deep), "PNG"),
        "turned by the camera": encoded(WHOLE.transpose(Image.Transpose.ROTATE_90), exif=turned),
        "damaged notes of the camera": encoded(WHOLE, exif=b"Exif\0\0MM\0*" + b"\xff" * 40),
        "a colour profile": encoded(
            WHOLE, icc_profile=ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
        ),
        "a damaged colour profile": encoded(WHOLE, icc_profile=b"nonsense" * 20),
        **{f"animated {kind}": content for kind, content in animated.items()},
    }


VARIANTS = variants()


@pytest.mark.parametrize("case", list(VARIANTS))
def test_every_kind_of_picture_shows_the_same_things(client: TestClient, case: str) -> None:
    response = search(client, VARIANTS[case])
    assert response.status_code == 200, response.text[:300]
    if case == "16-bit":  # Gray: nothing coloured is left to be found.
        assert response.json()["objects"] == []
        return
    objects = {o["class"]: o["items"][0]["product_id"] for o in response.json()["objects"]}
    assert objects == {"top": "p0005", "bag": "p0008"}


def test_a_large_photo_costs_little_memory(client: TestClient) -> None:
    photo = encoded(scene({0: 5, 3: 8}, 6_000))  # 36 megapixels: 108 MB as pixels.
    tracemalloc.start()
    response = search(client, photo)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert response.status_code == 200
    assert (response.json()["width"], response.json()["objects"][0]["class"]) == (6_000, "top")
    assert peak < 60 << 20


def test_a_body_that_is_too_large_is_cut_off(client: TestClient) -> None:
    assert search(client, b"\xff\xd8\xff" + bytes(17 << 20)).status_code == 413


def rebuild(
    seer: Shop, tmp_path: pathlib.Path, changed: dict[str, bytes], keep: tuple[str, ...] = names.COMPONENTS
) -> pathlib.Path:
    """The release with some files replaced, and signed as it then is."""
    import msgspec

    from contracts.release import describe_file, read_manifest
    from tests.integration.serving.synthetic import sign

    folder = tmp_path / "release"
    shutil.copytree(seer.registry / "v1", folder)
    for path, content in changed.items():
        (folder / path).write_bytes(content)
    manifest = read_manifest((folder / "manifest.json").read_bytes())
    kept = [c for c in manifest.components if c.name not in names.COMPONENTS or c.name in keep]
    for component in manifest.components:
        if component not in kept:
            for file in component.files:
                (folder / file.path).unlink()
    components = tuple(
        msgspec.structs.replace(c, files=tuple(describe_file(folder, f.path) for f in c.files)) for c in kept
    )
    sign(folder, seer.keys, msgspec.structs.replace(manifest, components=components))
    return folder


def index_of(seer: Shop) -> dict[str, Any]:
    with np.load(seer.registry / "v1" / names.INDEX_FILE) as arrays:
        return dict(arrays)


def other_embedder() -> bytes:
    """Gives other vectors than the one that the index and the golden pictures were made with."""
    model = seeing.embedder_graph()
    for tensor in model.graph.initializer:
        if tensor.name == "small":
            tensor.CopyFrom(onnx.numpy_helper.from_array(np.array(5.0, np.float32), "small"))
    return bytes(model.SerializeToString())


def foreign_graph() -> bytes:
    node = helper.make_node("Mystery", ["pixels"], ["embedding"], domain="example.org")
    graph = helper.make_graph(
        [node], "g", [helper.make_tensor_value_info("pixels", TensorProto.UINT8, ["B", 32, 32, 3])],
        [helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["B", seeing.DIM])],
    )  # fmt: skip
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("example.org", 1)]
    return bytes(helper.make_model(graph, opset_imports=opsets, ir_version=9).SerializeToString())


Change = Callable[[dict[str, Any]], dict[str, Any]]
INDEX_FAULTS: dict[str, tuple[Change, str]] = {
    "made by another embedder": (lambda a: a | {"embedder_sha256": np.array("0" * 64)}, "another embedder|made by"),
    "a vector that is not of length 1": (lambda a: a | {"vectors": a["vectors"] * 2}, "length 1"),
    "vectors that are no numbers": (lambda a: a | {"vectors": a["vectors"] * np.nan}, "length 1"),
    "rows out of order": (lambda a: a | {"shard": a["shard"][::-1].copy()}, "not sorted"),
    "a shard outside the names": (lambda a: a | {"shard": a["shard"] + 3}, "outside its names"),
    "a width of another model": (lambda a: a | {"vectors": a["vectors"][:, :20]}, "vectors"),
    "another outfit model": (lambda a: a | {"projected": a["projected"][:, :3]}, "projected"),
    "a slot outside the outfit": (lambda a: a | {"slot": a["slot"] + 9}, "slot"),
    "answers that do not fit": (lambda a: a | {"answers_from": a["answers_from"] * 2}, "answers_from"),
    "no prices": (lambda a: {k: v for k, v in a.items() if k != "price"}, "'price' is missing"),
    "objects": (lambda a: a | {"types": np.array([object()], dtype=object)}, "plain arrays"),
}  # fmt: skip


@pytest.mark.parametrize("case", list(INDEX_FAULTS))
def test_an_index_that_does_not_fit_is_refused_at_load(seer: Shop, tmp_path: pathlib.Path, case: str) -> None:
    change, words = INDEX_FAULTS[case]
    buffer = io.BytesIO()
    np.savez(buffer, **change(index_of(seer)))
    folder = rebuild(seer, tmp_path, {names.INDEX_FILE: buffer.getvalue()})
    with pytest.raises(ReleaseError, match=words):
        open_release(folder, seer.keys.verify)


def test_graphs_that_answer_otherwise_or_are_foreign_are_refused(seer: Shop, tmp_path: pathlib.Path) -> None:
    digest = {"embedder_sha256": np.array(hashlib.sha256(other_embedder()).hexdigest())}
    with_index = {
        names.EMBEDDER_FILE: other_embedder(),
        names.INDEX_FILE: archive(index_of(seer) | digest),
    }
    cases = [
        ({names.EMBEDDER_FILE: other_embedder()}, "made by"),
        (with_index, "another vector than recorded"),
        ({names.EMBEDDER_FILE: foreign_graph()}, "operators of 'example.org'"),
        ({names.DETECTOR_FILE: seeing.embedder_graph().SerializeToString()}, "boxes"),
        ({names.TOKENIZER_FILE: b"{}"}, "tokenizer"),
    ]
    for number, (changed, words) in enumerate(cases):
        folder = rebuild(seer, tmp_path / str(number), changed)
        with pytest.raises(ReleaseError, match=words):
            open_release(folder, seer.keys.verify)


@pytest.mark.parametrize(
    ("without", "words"),
    [(("golden_visual",), "golden/visual"), (("index",), "no 'index'"), (("embedder",), "no 'embedder'")],
)
def test_half_a_set_of_visual_parts_is_refused(
    seer: Shop, tmp_path: pathlib.Path, without: tuple[str, ...], words: str
) -> None:
    keep = tuple(part for part in names.COMPONENTS if part not in without)
    with pytest.raises(ReleaseError, match=words):
        open_release(rebuild(seer, tmp_path, {}, keep), seer.keys.verify)
