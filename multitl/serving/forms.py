"""The one image of a request: its body, or the one file of a form in it. Nothing of it is ever written to a disk."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from multitl.serving.refusals import MOST_BYTES, bad_form, too_large, wrong_type

MOST_PARTS = 8


async def read_image(content_type: str, length: str, body: AsyncIterator[bytes]) -> bytes:
    """content_type, length: the headers, "" where there is none. Raises Refusal."""
    kind = content_type.partition(";")[0].strip().lower()
    if kind != "multipart/form-data" and kind not in ("", "application/octet-stream") and not kind.startswith("image/"):
        raise wrong_type(content_type)
    if length.isdecimal() and int(length) > MOST_BYTES:
        raise too_large(int(length))
    data = bytearray()
    async for chunk in body:
        if len(data) + len(chunk) > MOST_BYTES:
            raise too_large("more")
        data += chunk
    return file_in_form(content_type, bytes(data)) if kind == "multipart/form-data" else bytes(data)


def file_in_form(content_type: str, data: bytes) -> bytes:
    """The only file of a form; other fields are left aside. Raises Refusal."""
    from python_multipart.exceptions import FormParserError
    from python_multipart.multipart import MultipartParser, parse_options_header

    _, options = parse_options_header(content_type)
    parts = _Parts()
    try:
        parser = MultipartParser(options[b"boundary"], parts.callbacks())
        parser.write(data)
        parser.finalize()
    except KeyError as error:
        raise bad_form("no boundary") from error
    except FormParserError as error:
        raise bad_form(str(error)) from error
    if not parts.is_ended:
        raise bad_form("a form that is cut off")
    files = [
        bytes(content) for disposition, content in parts.found if b"filename" in parse_options_header(disposition)[1]
    ]
    if len(files) != 1:
        raise bad_form(f"{len(files)} files in {len(parts.found)} fields")
    return files[0]


class _Parts:
    """What a parser of forms tells. found: of each field its Content-Disposition and its content."""

    def __init__(self) -> None:
        self.found: list[tuple[bytes, bytearray]] = []
        self.is_ended = False
        self._name, self._value = bytearray(), bytearray()

    def callbacks(self) -> Any:
        """As the parser names them."""
        return {
            "on_part_begin": self._begin,
            "on_header_field": lambda data, start, end: self._name.extend(data[start:end]),
            "on_header_value": lambda data, start, end: self._value.extend(data[start:end]),
            "on_header_end": self._header,
            "on_part_data": lambda data, start, end: self.found[-1][1].extend(data[start:end]),
            "on_end": self._end,
        }

    def _begin(self) -> None:
        if len(self.found) == MOST_PARTS:
            raise bad_form(f"more than {MOST_PARTS} fields")
        self.found.append((b"", bytearray()))

    def _header(self) -> None:
        if bytes(self._name).lower() == b"content-disposition":
            self.found[-1] = (bytes(self._value), self.found[-1][1])
        self._name, self._value = bytearray(), bytearray()

    def _end(self) -> None:
        self.is_ended = True
