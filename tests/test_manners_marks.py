"""Marks against training in a picture's file: found, recorded, obeyed by policy, and never an error."""

import io
import json
import struct
import zlib

import pytest
import signed_pictures
from hypothesis import given
from hypothesis import strategies as st
from PIL import PngImagePlugin
from test_download_server import encoded, picture, settings

from darkroom.download.decoders import Decoders, Picture
from darkroom.download.manners.marks import marks
from darkroom.download.status import Failure

VOCABULARY = "http://ns.useplus.org/ldf/vocab/"


def xmp(said: str, is_element: bool = False) -> bytes:
    """An XMP packet with this value of plus:DataMining."""
    value = f'plus:DataMining="{VOCABULARY}{said}"/>'
    if is_element:
        value = f"><plus:DataMining>{VOCABULARY}{said}</plus:DataMining></rdf:Description>"
    return (
        '<?xpacket begin="" id="W5M0MpCehiHzreSzNTczkc9d"?><x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF'
        ' xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description rdf:about=""'
        f' xmlns:plus="http://ns.useplus.org/ldf/xmp/1.0/" {value}</rdf:RDF></x:xmpmeta><?xpacket end="w"?>'
    ).encode()


def cbor(value: object) -> bytes:
    """An item of CBOR, of what the assertions are made of."""

    def head(kind: int, number: int) -> bytes:
        if number < 24:
            return bytes([kind << 5 | number])
        return bytes([kind << 5 | 25]) + struct.pack(">H", number)

    if isinstance(value, str):
        return head(3, len(value.encode())) + value.encode()
    if isinstance(value, dict):
        return head(5, len(value)) + b"".join(cbor(key) + cbor(item) for key, item in value.items())
    if isinstance(value, list):
        return head(4, len(value)) + b"".join(map(cbor, value))
    assert isinstance(value, int)
    return head(0, value)


def box(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", 8 + len(content)) + kind + content


def superbox(uuid: bytes, label: str, *contents: bytes) -> bytes:
    """A JUMBF box with its description."""
    head = box(b"jumd", uuid + bytes.fromhex("00110010800000aa00389b71") + b"\x03" + label.encode() + b"\0")
    return box(b"jumb", head + b"".join(contents))


def manifest(
    label: str, entries: dict[str, dict[str, str]], padding: int = 0, is_json: bool = False
) -> bytes:
    """A manifest store with one assertion, behind another one of so many bytes."""
    told = {"entries": entries}
    content = box(b"json", json.dumps(told).encode()) if is_json else box(b"cbor", cbor(told))
    other = b"c2pa.training-mining" * min(padding // 20, 20) + bytes(padding)
    thumbnail = superbox(b"bidb", "c2pa.thumbnail.claim.jpeg", box(b"bidb", other))
    assertion = superbox(b"json" if is_json else b"cbor", label, content)
    claim = superbox(
        b"cbor", "c2pa.claim", box(b"cbor", cbor({"url": f"self#jumbf=c2pa.assertions/{label}"}))
    )
    store = superbox(b"c2as", "c2pa.assertions", thumbnail, assertion)
    return superbox(b"c2pa", "c2pa", superbox(b"c2ma", "urn:uuid:1", claim, store))


def segment(kind: int, content: bytes) -> bytes:
    return bytes([0xFF, kind]) + struct.pack(">H", 2 + len(content)) + content


def jpeg_with(*segments: bytes) -> bytes:
    plain = encoded(picture())
    return plain[:2] + b"".join(segments) + plain[2:]


def app1(said: str, is_element: bool = False) -> bytes:
    return segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0" + xmp(said, is_element))


def app11(boxes: bytes, size: int = 60_000) -> bytes:
    """Boxes as a JPEG has them: pieces, each with the head of the box."""
    head, rest = boxes[:8], boxes[8:]
    pieces = [rest[i : i + size] for i in range(0, len(rest), size)]
    return b"".join(
        segment(0xEB, b"JP" + struct.pack(">HI", 1, number) + head + piece)
        for number, piece in enumerate(pieces, 1)
    )


def png_with(kind: bytes, content: bytes) -> bytes:
    plain = encoded(picture(), "PNG")
    chunk = struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
    return plain[:33] + chunk + plain[33:]


def png_text(said: str, is_packed: bool) -> bytes:
    info, out = PngImagePlugin.PngInfo(), io.BytesIO()
    info.add_itxt("XML:com.adobe.xmp", xmp(said).decode(), zip=is_packed)
    picture().save(out, "PNG", pnginfo=info)
    return out.getvalue()


NOT_ALLOWED = {
    "c2pa.ai_generative_training": {"use": "notAllowed"},
    "c2pa.ai_inference": {"use": "notAllowed"},
}
TOLD = ["c2pa.training-mining: c2pa.ai_generative_training=notAllowed"]
PLUS = ["plus:DataMining: DMI-PROHIBITED-AIMLTRAINING"]
SAID = "DMI-PROHIBITED-AIMLTRAINING"


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (jpeg_with(app1(SAID)), PLUS),
        (jpeg_with(app1(SAID, True)), PLUS),
        (
            jpeg_with(app1("DMI-PROHIBITED")),
            ["plus:DataMining: DMI-PROHIBITED"],
        ),
        (jpeg_with(app1("DMI-ALLOWED")), []),
        (jpeg_with(app1("DMI-UNSPECIFIED")), []),
        (png_text(SAID, False), PLUS),
        (png_text(SAID, True), PLUS),
        (encoded(picture(), "WEBP", xmp=xmp(SAID)), PLUS),
        (encoded(picture(), "TIFF", tiffinfo={700: xmp(SAID)}), PLUS),
        (encoded(picture(), "AVIF", xmp=xmp(SAID)), PLUS),
        (jpeg_with(app11(manifest("c2pa.training-mining", NOT_ALLOWED))), TOLD),
        # Behind a thumbnail, over the border of two segments, wherever it falls.
        *(
            (jpeg_with(app11(manifest("c2pa.training-mining", NOT_ALLOWED, 400), n)), TOLD)
            for n in (40, 61, 97)
        ),
        (jpeg_with(app11(manifest("c2pa.training-mining", NOT_ALLOWED, 90_000))), TOLD),
        (jpeg_with(app11(manifest("c2pa.training-mining", NOT_ALLOWED, is_json=True))), TOLD),
        (png_with(b"caBX", manifest("c2pa.training-mining__1", NOT_ALLOWED)), TOLD),
        (
            png_with(
                b"caBX",
                manifest(
                    "cawg.training-mining",
                    {
                        "cawg.ai_training": {"use": "constrained", "constraint_info": "ask"},
                        "cawg.data_mining": {"use": "allowed"},
                    },
                ),
            ),
            ["cawg.training-mining: cawg.ai_training=constrained"],
        ),
        (png_with(b"caBX", manifest("c2pa.actions", NOT_ALLOWED)), []),
        # As the library of the standard's authors writes them.
        (signed_pictures.JPEG, TOLD),
        (signed_pictures.PNG, TOLD),
        (encoded(picture()), []),
        (b"", []),
    ],
)
def test_a_mark_is_found_wherever_files_have_it(content: bytes, expected: list[str]) -> None:
    assert marks(content) == expected


@given(st.data())
def test_no_damage_is_an_error(data: st.DataObject) -> None:
    whole = data.draw(
        st.sampled_from(
            [
                png_with(b"caBX", manifest("c2pa.training-mining", NOT_ALLOWED)),
                jpeg_with(app11(manifest("c2pa.training-mining", NOT_ALLOWED, 400), 61)),
                png_text(SAID, True),
            ]
        )
    )
    content = bytearray(whole)
    for _ in range(data.draw(st.integers(0, 6))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    assert all(
        isinstance(mark, str) for mark in marks(bytes(content[: data.draw(st.integers(0, len(content)))]))
    )


@given(st.binary(max_size=200))
def test_no_assertion_is_an_error(payload: bytes) -> None:
    content = superbox(b"cbor", "c2pa.training-mining", box(b"cbor", payload))
    assert marks(b"\x89PNG" + content) in ([], TOLD)


def test_what_is_told_of_a_file_full_of_marks_has_a_bound() -> None:
    said = [f"{VOCABULARY}DMI-PROHIBITED-{'A' * (i % 50)}" for i in range(100_000)]
    nested = superbox(b"cbor", "c2pa.training-mining", box(b"cbor", b"\x81" * 60_000))
    huge = superbox(b"cbor", "c2pa.training-mining", box(b"cbor", b"\x9b" + b"\xff" * 8))
    for content in (" ".join(said).encode(), nested * 100, huge * 100, b"c2pa.training-mining\0" * 100_000):
        found = marks(content)
        assert len(found) <= 8
        assert all(len(mark) <= 150 for mark in found)


@pytest.mark.parametrize(
    "content", [png_text(SAID, True), jpeg_with(app11(manifest("c2pa.training-mining", NOT_ALLOWED)))]
)
def test_a_marked_picture_is_refused_by_policy_and_its_mark_recorded_anyway(content: bytes) -> None:
    with Decoders(settings()) as decoders, Decoders(settings(obey_marks=False)) as lenient:
        refused, kept = decoders.decode([content]), lenient.decode([content])
        plain = decoders.decode([encoded(picture())])
    assert isinstance(refused, Failure)
    assert isinstance(kept, Picture)
    assert refused.status == "opted_out"
    assert refused.error == f"a mark in the file says {refused.opt_outs[0]}"
    assert refused.opt_outs == kept.opt_outs == tuple(marks(content))
    assert (refused.sha256, refused.num_bytes) == (kept.sha256, len(content))
    assert isinstance(plain, Picture)
    assert plain.opt_outs == ()
    assert not marks(kept.jpeg)
