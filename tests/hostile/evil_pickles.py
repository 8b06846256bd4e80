"""Pickles that mean harm. Each would leave a file behind, the canary, if anything it names were called.

`CALLS` try to run something. `BOMBS` only try to eat memory or time; they are plain data, and may be read as such.
"""

from __future__ import annotations

import pickle
from pathlib import Path

from protocol.keys import encode_key

PROTO, STOP = b"\x80\x05", b"."
MANY = 20_000


def text(word: str) -> bytes:
    raw = word.encode()
    return b"X" + len(raw).to_bytes(4, "little") + raw


def named(module: str, name: str) -> bytes:
    """STACK_GLOBAL."""
    return text(module) + text(name) + b"\x93"


def call(function: bytes, *arguments: bytes) -> bytes:
    return function + b"(" + b"".join(arguments) + b"tR"


def whole(opcodes: bytes) -> bytes:
    return PROTO + opcodes + STOP


def calls(canary: Path) -> dict[str, bytes]:
    """Name -> a pickle that would make the canary."""
    shell, code = text(f"touch {canary}"), text(f"open({str(canary)!r}, 'w').close()")
    system = named("os", "system")
    evaluated = call(named("builtins", "eval"), code)
    return {
        "os.system": whole(call(system, shell)),
        "posix.system": whole(call(named("posix", "system"), shell)),
        "old protocol": b"cos\nsystem\n(S'" + f"touch {canary}".encode() + b"'\ntR.",
        "INST": b"(S'" + f"touch {canary}".encode() + b"'\nios\nsystem\n.",
        "OBJ": whole(b"(" + system + shell + b"o"),
        "eval": whole(evaluated),
        "exec": whole(call(named("builtins", "exec"), code)),
        "in containers": whole(b"}" + text("a") + b"](" + evaluated + b"ee" + b"s"),
        "as a dict's key": whole(b"}" + evaluated + b"K\x01s"),
        "in a frozenset": whole(b"(" + evaluated + b"\x91"),
        "NEWOBJ": whole(named("subprocess", "Popen") + b"(" + text("touch") + text(str(canary)) + b"t\x81"),
        "NEWOBJ_EX": whole(named("subprocess", "Popen") + b")}" + text("args") + shell + b"s\x92"),
        "BUILD with a setter": whole(
            call(named("types", "SimpleNamespace")) + b"}" + text("__setstate__") + evaluated + b"sb"
        ),
        "BUILD of a trusted class": whole(
            named("protocol.records", "Position") + b"N}" + text("__setstate__") + system + b"s\x86b"
        ),
        "dots through a trusted module": whole(call(named("protocol.records", "msgspec.json.sys.modules"), shell)),
        "dots through a trusted class": whole(call(named("protocol.records", "Record.replace.__globals__.get"), shell)),
        "dots through a plain type": whole(call(named("builtins", "dict.__class__.__base__.__subclasses__"), shell)),
        "a reducer's helper": whole(
            call(named("copyreg", "_reconstructor"), system, named("builtins", "object"), shell)
        ),
        "a record's helper": whole(call(named("protocol.records", "restore_record"), system, b"C\x01\x80")),
        "a new object's helper": whole(call(named("copyreg", "__newobj__"), system, shell)),
        "functools.partial": whole(call(call(named("functools", "partial"), system, shell))),
        "operator.methodcaller": whole(call(named("operator", "methodcaller"), text("system"), shell)),
        "getattr": whole(call(named("builtins", "getattr"), named("builtins", "dict"), text("fromkeys"))),
        "import": whole(call(named("builtins", "__import__"), text("antigravity"))),
        "code that is imported": whole(named("tests.hostile.touches", "anything")),
        "an extension": whole(b"\x82\x01)R"),
        "a wide extension": whole(b"\x84\xff\xff\xff\x7f)R"),
        "a persistent id": whole(shell + b"Q"),
        "an old persistent id": b"Ptouch\n.",
        "a buffer from outside": whole(b"\x97"),
        "default factory": whole(call(named("collections", "defaultdict"), system) + shell + b"K\x00s"),
        "pickle in a pickle": whole(call(named("pickle", "loads"), b"B" + _sized(whole(call(system, shell))))),
        "a frame of 2**60 bytes": PROTO + b"\x95" + (2**60).to_bytes(8, "little") + call(system, shell) + STOP,
        "after a value": PROTO + b"K\x010" + call(system, shell) + STOP,
    }


BOMBS = {
    "laughs": whole(
        b"](" + text("ha") + b"e\x940" + b"".join(b"](h%ch%ce\x940" % (n, n) for n in range(60)) + b"h\x3c"
    ),
    "deep lists": whole(b"]" * MANY + b"a" * (MANY - 1)),
    "deep tuples": whole(b")" + b"\x85" * MANY),
    "deep marks": whole(b"(" * MANY + b"t" * MANY),
    "a memo of 2**31": whole(b"N" + b"r\xff\xff\xff\x7f"),
    "a memo by text": b"Np999999999999\n.",
    "2**40 bytes": whole(b"\x8e" + (2**40).to_bytes(8, "little")),
    "a text of 2**62": whole(b"\x8d" + (2**62).to_bytes(8, "little")),
    "a bytearray of 2**62": whole(b"\x96" + (2**62).to_bytes(8, "little")),
    "a negative long": whole(b"\x8b\xff\xff\xff\xff"),
    "an int of many digits": whole(b"\x8b" + (60_000).to_bytes(4, "little") + b"\x7f" * 60_000),
    "nothing": b"",
    "no end": PROTO + b"N",
    "junk": b"\xff" * 50,
    "an empty stack": whole(b"0"),
    "itself": whole(b"]\x94h\x00a"),
    "itself twice": whole(b"]\x94(h\x00h\x00e"),
}
"""Name -> a pickle without calls."""


def _sized(data: bytes) -> bytes:
    return len(data).to_bytes(4, "little") + data


def as_map_file(payload: bytes) -> bytes:
    """The opcodes of a pickled dict that begins as a map file does, with `payload`'s in place of a value."""
    inner = payload.removeprefix(PROTO).removesuffix(STOP)
    return b"\x80\x05\x8c\x06pickle\x8c\x05loads\x93\x940}(" + encode_key("k") + inner + b"u."


def really_runs(payload: bytes) -> None:
    """What a careless reader would do: the proof that the canary would sing."""
    try:
        pickle.loads(payload)
    except Exception:
        pass
