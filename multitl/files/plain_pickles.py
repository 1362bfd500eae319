"""Read the plain part of Python's pickle format without ever running code: a small opcode machine of our own.

A pickle is a program for a stack machine, and Python's own unpickler calls whatever the program names. This one knows
the thirty-odd opcodes that pickle protocol 2 needs for plain values (what `torch.save` writes), calls nothing but
functions handed to it by name, and refuses everything else before looking at it. Work and memory grow linearly with the
file and stop at MOST_OPCODES. pickletools in the standard library documents every opcode.
"""

from __future__ import annotations

import pickletools
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

MOST_OPCODES = 1_000_000  # a network of 3,000 tensors takes about 100,000
_LARGEST_KEY = 2**63


class UnsafeFileError(Exception):
    """The file asks for something that plain values do not need; the text completes "it asks for ..."."""


class DamagedFileError(Exception):
    """The file is cut off or makes no sense; the text is a clause about "it"."""


@dataclass(frozen=True)
class Function:
    """Something a pickle may call; `call` must check its arguments and raise DamagedFileError or UnsafeFileError."""

    call: Callable[..., Any]


@dataclass(frozen=True)
class Record:
    """A class that a pickle may make objects of, which are nothing but attributes: a dict is made in their place."""


class _Attributes(dict):
    """What stands for an object of a `Record`, so that a BUILD for it is told from one for a dict."""


def read_pickle(
    data: bytes,
    start: int = 0,
    allowed: Mapping[str, Any] | None = None,
    persistent: Callable[[Any], Any] | None = None,
) -> tuple[Any, int]:
    """Run the pickle at `data[start:]`. Returns its value and the position after it.

    allowed: "module name" -> what the pickle gets for that global: a `Function`, a `Record`, or any other value.
    persistent: called with each persistent id (`torch.save` names its storages so).

    Containers in the value may be shared or contain themselves; whoever walks them must count.
    Raises UnsafeFileError or DamagedFileError.
    """
    machine = _Machine(data, start, allowed or {}, persistent)
    for _ in range(MOST_OPCODES):
        code = machine.take(1)[0]
        if code == _STOP:
            return machine.pop(), machine.position
        operation = _OPERATIONS.get(code)
        if operation is None:
            raise UnsafeFileError(f"the opcode {_opcode_name(code)}")
        operation(machine)
    raise UnsafeFileError(f"more than {MOST_OPCODES:,} opcodes")


class _Machine:
    """The stack, the stacks below each open MARK, and the memo; `position` is the next byte to read."""

    def __init__(
        self, data: bytes, start: int, allowed: Mapping[str, Any], persistent: Callable[[Any], Any] | None
    ) -> None:
        self.data, self.position, self.allowed, self.persistent = data, start, allowed, persistent
        self.stack: list[Any] = []
        self.below: list[list[Any]] = []
        self.memo: dict[int, Any] = {}  # a dict: an index of 2**32 must not make a list of that length

    def take(self, count: int) -> bytes:
        end = self.position + count
        if end > len(self.data):
            raise DamagedFileError("it ends in the middle of a pickle")
        taken, self.position = self.data[self.position : end], end
        return taken

    def number(self, layout: str) -> Any:
        return struct.unpack(layout, self.take(struct.calcsize(layout)))[0]

    def text(self, length_layout: str) -> str:
        try:
            return self.take(self.number(length_layout)).decode("utf-8", "surrogatepass")
        except UnicodeDecodeError as error:
            raise DamagedFileError("a text in it is not UTF-8") from error

    def line(self) -> str:
        end = self.data.find(b"\n", self.position, self.position + 256)
        if end < 0:
            raise DamagedFileError("a name in it has no end")
        return self.take(end + 1 - self.position)[:-1].decode("latin-1")

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def pop(self) -> Any:
        if not self.stack:
            raise DamagedFileError("its stack runs empty")
        return self.stack.pop()

    def top(self, kind: type) -> Any:
        if not self.stack or type(self.stack[-1]) is not kind:
            raise DamagedFileError(f"it fills something that is no {kind.__name__}")
        return self.stack[-1]

    def mark(self) -> None:
        self.below.append(self.stack)
        self.stack = []

    def pop_to_mark(self) -> list[Any]:
        if not self.below:
            raise DamagedFileError("a mark is missing")
        items, self.stack = self.stack, self.below.pop()
        return items


def _long(machine: _Machine) -> None:
    machine.push(int.from_bytes(machine.take(machine.number("<B")), "little", signed=True))


def _tuple(count: int) -> Callable[[_Machine], None]:
    def operation(machine: _Machine) -> None:
        items = [machine.pop() for _ in range(count)]
        machine.push(tuple(reversed(items)))

    return operation


def _put(layout: str) -> Callable[[_Machine], None]:
    def operation(machine: _Machine) -> None:
        value = machine.pop()
        machine.push(value)
        machine.memo[machine.number(layout)] = value

    return operation


def _get(layout: str) -> Callable[[_Machine], None]:
    def operation(machine: _Machine) -> None:
        index = machine.number(layout)
        if index not in machine.memo:
            raise DamagedFileError("it refers to a value that it never stored")
        machine.push(machine.memo[index])

    return operation


def _append(machine: _Machine) -> None:
    value = machine.pop()
    machine.top(list).append(value)


def _appends(machine: _Machine) -> None:
    items = machine.pop_to_mark()
    machine.top(list).extend(items)


def _set_item(machine: _Machine) -> None:
    value, key = machine.pop(), machine.pop()
    _fill(machine.top(dict), [key, value])


def _set_items(machine: _Machine) -> None:
    items = machine.pop_to_mark()
    _fill(machine.top(dict), items)


def _fill(target: dict, items: list[Any]) -> None:
    """Keys are only texts and 64-bit integers: hashing a tuple can take for ever, huge integers can all collide."""
    if len(items) % 2:
        raise DamagedFileError("a dict in it has a key without a value")
    for key, value in zip(items[::2], items[1::2], strict=True):
        if type(key) is not str and not (type(key) is int and -_LARGEST_KEY <= key < _LARGEST_KEY):
            raise UnsafeFileError(f"a dict key of type {type(key).__name__}")
        if key in target:
            raise DamagedFileError(f"the key {str(key)[:80]!r} is there twice")
        target[key] = value


def ordered_dict(*arguments: Any) -> dict:
    """collections.OrderedDict as a plain dict: empty, or from a list of pairs as Python 2 wrote it.

    The list is used up: a pickle that hands over one long list a thousand times does not get a thousand long dicts.
    """
    pairs = arguments[0] if len(arguments) == 1 else list(arguments)
    if type(pairs) is not list or not all(type(pair) in (list, tuple) and len(pair) == 2 for pair in pairs):
        raise DamagedFileError("an OrderedDict in it is not made of pairs")
    result: dict = {}
    _fill(result, [item for pair in pairs for item in pair])
    pairs.clear()
    return result


def _global(machine: _Machine) -> None:
    name = f"{machine.line()} {machine.line()}"
    if name not in machine.allowed:
        raise UnsafeFileError(f"the Python object {name.replace(' ', '.')[:160]!r}")
    machine.push(machine.allowed[name])


def _reduce(machine: _Machine) -> None:
    arguments, function = machine.pop(), machine.pop()
    if type(function) is not Function or type(arguments) is not tuple:
        raise UnsafeFileError(f"a call of something of type {type(function).__name__}")
    machine.push(function.call(*arguments))


def _new_object(machine: _Machine) -> None:
    arguments, kind = machine.pop(), machine.pop()
    if type(kind) is not Record or arguments != ():
        raise UnsafeFileError(f"an object made of something of type {type(kind).__name__}")
    machine.push(_Attributes())


def _build(machine: _Machine) -> None:
    """Attributes of a dict are dropped; the only ones that a plain file has are the `_metadata` of a state_dict."""
    state = machine.pop()
    if type(state) is dict and machine.stack and type(machine.stack[-1]) is _Attributes:
        _fill(machine.stack[-1], [item for pair in state.items() for item in pair])
        state.clear()  # as in ordered_dict: one long dict must not fill a thousand objects
    elif type(state) is dict and set(state) == {"_metadata"}:
        machine.top(dict)
    else:
        raise UnsafeFileError("attributes set on an object (the opcode BUILD)")


def _persistent(machine: _Machine) -> None:
    if machine.persistent is None:
        raise UnsafeFileError("the opcode BINPERSID")
    machine.push(machine.persistent(machine.pop()))


def _protocol(machine: _Machine) -> None:
    version = machine.number("<B")
    if version != 2:
        raise UnsafeFileError(f"pickle protocol {version} (torch.save writes 2 unless told otherwise)")


def _opcode_name(code: int) -> str:
    return next((opcode.name for opcode in pickletools.opcodes if opcode.code == chr(code)), f"0x{code:02x}, unknown")


_STOP = ord(".")
_OPERATIONS: dict[int, Callable[[_Machine], None]] = {
    0x80: _protocol,  # PROTO
    ord("N"): lambda machine: machine.push(None),  # NONE
    0x88: lambda machine: machine.push(True),  # NEWTRUE
    0x89: lambda machine: machine.push(False),  # NEWFALSE
    ord("K"): lambda machine: machine.push(machine.number("<B")),  # BININT1
    ord("M"): lambda machine: machine.push(machine.number("<H")),  # BININT2
    ord("J"): lambda machine: machine.push(machine.number("<i")),  # BININT
    0x8A: _long,  # LONG1
    ord("G"): lambda machine: machine.push(machine.number(">d")),  # BINFLOAT
    ord("X"): lambda machine: machine.push(machine.text("<I")),  # BINUNICODE
    ord("U"): lambda machine: machine.push(machine.text("<B")),  # SHORT_BINSTRING: a str of Python 2
    ord(")"): lambda machine: machine.push(()),  # EMPTY_TUPLE
    0x85: _tuple(1),  # TUPLE1
    0x86: _tuple(2),  # TUPLE2
    0x87: _tuple(3),  # TUPLE3
    ord("("): _Machine.mark,  # MARK
    ord("t"): lambda machine: machine.push(tuple(machine.pop_to_mark())),  # TUPLE
    ord("]"): lambda machine: machine.push([]),  # EMPTY_LIST
    ord("a"): _append,  # APPEND
    ord("e"): _appends,  # APPENDS
    ord("}"): lambda machine: machine.push({}),  # EMPTY_DICT
    ord("s"): _set_item,  # SETITEM
    ord("u"): _set_items,  # SETITEMS
    ord("q"): _put("<B"),  # BINPUT
    ord("r"): _put("<I"),  # LONG_BINPUT
    ord("h"): _get("<B"),  # BINGET
    ord("j"): _get("<I"),  # LONG_BINGET
    ord("c"): _global,  # GLOBAL
    ord("R"): _reduce,  # REDUCE
    0x81: _new_object,  # NEWOBJ
    ord("b"): _build,  # BUILD
    ord("Q"): _persistent,  # BINPERSID
}
