"""Finds pickles among files, by what is in them: loading one runs whatever code its author put there.

Sources refuse a checkpoint or a model that holds one unless it is allowed by name. Nothing is unpickled here: opcodes
are read with `pickletools`, and only as far as it takes to tell. Archives inside archives are not opened.
"""

import bz2
import io
import lzma
import os
import pickletools
import re
import warnings
import zipfile
import zlib
from pathlib import Path
from typing import BinaryIO

from numpy.lib import format as npy

# Loaded by unpickling whatever is in them: joblib's own compression, for one, hides what they hold.
_ALWAYS = frozenset({".dill", ".joblib", ".pickle", ".pkl"})
# Written by torch.save in several forms, most of them pickles. Harmless only as a zip archive without one.
_TORCH = frozenset({".ckpt", ".pt", ".pth"})
_CALLING = frozenset({"BUILD", "INST", "NEWOBJ", "NEWOBJ_EX", "OBJ", "REDUCE"})
_IMPORTING = frozenset({"EXT1", "EXT2", "EXT4", "GLOBAL", "INST", "STACK_GLOBAL"})
_IMPORTED = re.compile(r"[\w.]+ [\w.]+")
_ZIP = b"PK\x03\x04"
"""What a zip archive's first member begins with: by this a loader such as torch.load tells one."""
_MOST_OPCODES = 1_000_000
_LONGEST_READ = 64 * 1024 * 1024
_ZFILE_HEADER = len("ZF") + len(hex(2**64))
_MOST_INFLATED = 1024 * 1024


class _TooMuchError(Exception):
    """What may be a pickle is larger than is read of one."""


class _Bounded(io.BufferedReader):
    """A file that refuses to give much at once, since lengths in a file are whatever its author wrote."""

    def read(self, size: int | None = -1, /) -> bytes:
        if size is not None and size > _LONGEST_READ:
            if size <= os.fstat(self.fileno()).st_size - self.tell():
                raise _TooMuchError
            size = 0  # there is not as much: no pickle, as the caller finds out
        return super().read(size)

    def readline(self, _size: int | None = -1, /) -> bytes:
        line = super().readline(_LONGEST_READ)
        if len(line) == _LONGEST_READ:
            raise _TooMuchError
        return line


def is_pickled(path: Path) -> bool:
    """Return whether a file is a pickle or holds one. Raises OSError where it cannot be read.

    What cannot be told (an archive that cannot be opened, a file that reads as a pickle for longer than is looked at)
    counts as one. A link is followed, as a loader would.
    """
    if path.suffix.lower() in _ALWAYS:
        return True
    with _Bounded(io.FileIO(path)) as stream:
        # A zip is found from its end, an unpickler reads from the start: one file can be both, so it is read as both.
        if _in_stream(stream):
            return True
        stream.seek(0)
        begins_as_zip = stream.read(len(_ZIP)) == _ZIP
        if (begins_as_zip or zipfile.is_zipfile(stream)) and _in_zip(stream):
            return True
        return path.suffix.lower() in _TORCH and not begins_as_zip


def _in_zip(stream: BinaryIO) -> bool:
    try:
        with zipfile.ZipFile(stream) as archive:
            for member in archive.infolist():
                if Path(member.filename).suffix.lower() in _ALWAYS:
                    return True
                with archive.open(member) as opened:
                    head = opened.read(_MOST_INFLATED)
                if _in_head(head):
                    return True
    except (zipfile.BadZipFile, zlib.error, lzma.LZMAError, OSError, EOFError, ValueError, NotImplementedError):
        return True  # a loader that is less strict may still open it
    except RuntimeError:  # encrypted
        return True
    return False


def _in_stream(stream: BinaryIO) -> bool:
    start = stream.read(len(npy.MAGIC_PREFIX))
    stream.seek(0)
    if start == npy.MAGIC_PREFIX:
        return _in_npy(stream)
    if _is_pickle(stream):
        return True
    stream.seek(0)
    inflated = _inflated(stream.read(_MOST_INFLATED))
    return inflated is not None and _in_head(inflated)


def _in_head(head: bytes) -> bool:
    """Look at the first bytes of something larger, perhaps: a pickle that goes on beyond them counts."""
    stream = io.BytesIO(head)
    if head.startswith(npy.MAGIC_PREFIX):
        return _in_npy(stream)
    return _is_pickle(stream, whole=len(head) < _MOST_INFLATED)


def _in_npy(stream: BinaryIO) -> bool:
    """Return whether an array's elements are objects, which are stored as one pickle after the header."""
    try:
        version = npy.read_magic(stream)  # type: ignore[no-untyped-call]
        read_header = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        dtype = read_header(stream)[2]  # type: ignore[no-untyped-call]
    except (ValueError, SyntaxError, EOFError):
        return True
    return bool(dtype.hasobject)


def _inflated(data: bytes) -> bytes | None:
    """Return the beginning of what was compressed as joblib and others do it; None where nothing was."""
    if data.startswith(b"ZF0x"):  # joblib before 0.10: a length in hex, padded, before zlib's
        data = data[_ZFILE_HEADER:].lstrip(b" ")
    try:
        if data.startswith(b"BZh"):
            return bz2.BZ2Decompressor().decompress(data, _MOST_INFLATED)
        if data.startswith((b"\xfd7zXZ\x00", b"\x5d\x00\x00")):
            return lzma.LZMADecompressor().decompress(data, _MOST_INFLATED)
        if data.startswith((b"\x1f\x8b", b"\x78")):
            return zlib.decompressobj(zlib.MAX_WBITS | 32).decompress(data, _MOST_INFLATED)
    except (OSError, lzma.LZMAError, zlib.error, EOFError):
        return None
    return None


def _is_pickle(stream: BinaryIO, *, whole: bool = True) -> bool:
    """Follow the opcodes with a stack, as an unpickler would, until one calls something or it cannot go on.

    Text may begin with letters that are opcodes ("cat", a newline, "dog" imports `dog` from `at`), but soon takes from
    an empty stack. A pickle of plain data counts where it begins with its protocol, as all do that Python 3 writes.
    """
    stack: list[object] = []
    announced = imports = False
    seen = 0
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # an odd escape in what is no pickle
            for opcode, argument, position in pickletools.genops(stream):
                seen += 1
                if not _apply(opcode, stack) or seen > _MOST_OPCODES:
                    return seen > _MOST_OPCODES
                announced = announced or (opcode.name == "PROTO" and position == 0)
                if opcode.name in _IMPORTING:
                    if isinstance(argument, str) and _IMPORTED.fullmatch(argument) is None:
                        return False  # no module has such a name: an unpickler ends here
                    imports = True
                if imports and (announced or opcode.name in _CALLING):
                    return True
    except _TooMuchError:
        return True
    except ValueError:  # no opcode, or one whose argument is none
        return seen > 0 and not whole and not stream.read(1)
    return announced or imports


def _apply(opcode: pickletools.OpcodeInfo, stack: list[object]) -> bool:
    """Do to `stack` what `opcode` does; False where it takes more than there is."""
    before = opcode.stack_before
    takes = len(before)
    marked = pickletools.markobject in before
    if marked or (opcode.name == "POP" and stack and stack[-1] is pickletools.markobject):
        if pickletools.markobject not in stack:
            return False
        while stack.pop() is not pickletools.markobject:
            pass
        takes = before.index(pickletools.markobject) if marked else 0
    if len(stack) < takes:
        return False
    del stack[len(stack) - takes :]
    stack.extend(opcode.stack_after)
    return True
