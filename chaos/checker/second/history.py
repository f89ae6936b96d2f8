"""The events of a history's file, decoded for the second checker.

After the documents of the format: `chaos/checker/src/history/file.rs` for the frames, `event.rs`
beside it for the events, which are in postcard. A file that does not fit to its last byte is
unreadable; nothing is skipped.
"""

import zlib
from collections import namedtuple

# What an error code says of a send (docs/errors.md): it settles the send for good; this attempt
# had no effect.
FINAL = {45, 60, 61, 62, 63, 64, 65, 66, 67, 80, 81, 82, 83, 84, 90}
NO_EFFECT = FINAL | {1, 2, 3, 4, 5, 6, 7, 8, 20, 21, 22, 23, 24, 27, 40, 42, 43, 44, 46, 47, 48, 49,
                     50, 51, 85, 86, 100, 101}
CODES = NO_EFFECT | {25, 26, 41}

# An origin: this, or (session, n).
BACKEND = ()

Message = namedtuple("Message", "sender origin id content")
Refusal = namedtuple("Refusal", "sender origin id recipient code")
Accepted = namedtuple("Accepted", "seq origin")
Judgement = namedtuple("Judgement", "what of")
Refused = namedtuple("Refused", "code")


class Unreadable(Exception):
    """The file is not, or not to its end, what a writer leaves."""


class Frame:
    """A payload in postcard; each method reads a value of one type."""

    def __init__(self, data):
        self.data, self.at = data, 0

    def u8(self):
        self.at += 1
        return self.data[self.at - 1]

    def varint(self, bits):
        value = shift = 0
        while True:
            byte = self.u8()
            value |= (byte & 0x7F) << shift
            shift += 7
            if value >> bits or shift > bits + 7:
                raise Unreadable(f"a number has more than {bits} bits")
            if byte < 0x80:
                return value

    def u32(self):
        return self.varint(32)

    def u64(self):
        return self.varint(64)

    def u128(self):
        return self.varint(128)

    def code(self):
        code = self.varint(16)
        if code not in CODES:
            raise Unreadable(f"error code {code} is unknown")
        return code

    def one_of(self, *variants):
        index = self.u32()
        if index >= len(variants):
            raise Unreadable(f"variant {index} of {len(variants)}")
        return variants[index]()

    def bool(self):
        return self.one_of(lambda: False, lambda: True)

    def option(self, read):
        return self.one_of(lambda: None, read)

    def maybe_u64(self):
        return self.option(self.u64)

    def string(self):
        length = self.u32()
        self.at += length
        return bytes(self.data[self.at - length:self.at]).decode()

    def users(self):
        return frozenset([self.u32() for _ in range(self.u32())])

    def way(self):
        return self.one_of(lambda: "session", lambda: "backend")

    def origin(self):
        return self.one_of(lambda: (self.u64(), self.u64()), lambda: BACKEND)

    def copy(self):
        return self.one_of(
            lambda: Message(self.u32(), self.origin(), self.u128(), self.u64()),
            lambda: Refusal(self.u32(), self.origin(), self.option(self.u128), self.u32(),
                            self.code()))

    def outcome(self):
        return self.one_of(lambda: Accepted(self.u32(), self.option(self.origin)),
                           lambda: Refused(self.code()), lambda: None)

    def judgement(self):
        return self.option(lambda: self.one_of(lambda: Judgement("allow", None),
                                               lambda: Judgement("refuse", self.code()),
                                               lambda: Judgement("replace", self.u64()),
                                               lambda: Judgement("drop", None)))

    def entries(self):
        return [(self.u32(), self.copy()) for _ in range(self.u32())]


def kind(name, fields):
    fields = [field.split(":") for field in fields.split()]
    event = namedtuple(name, [field for field, _ in fields])
    return name.lower(), event, [getattr(Frame, of) for _, of in fields]


# The order is that of the variants.
EVENTS = [
    kind("Send", "op:u64 at:u64 sender:u32 device:u8 way:way id:u128 to:users content:u64"),
    kind("Sent", "op:u64 at:u64 outcome:outcome"),
    kind("Head", "op:u64 at:u64 user:u32"),
    kind("HeadIs", "op:u64 at:u64 seq:u32"),
    kind("Range", "op:u64 at:u64 user:u32 after:u32"),
    kind("RangeIs", "op:u64 at:u64 floor:u32 entries:entries"),
    kind("Start", "at:u64 user:u32 device:u8 cursor:u32"),
    kind("Stop", "at:u64 user:u32 device:u8"),
    kind("Taken", "at:u64 user:u32 device:u8 seq:u32 copy:copy"),
    kind("Gap", "at:u64 user:u32 device:u8 to:u32"),
    kind("CursorIs", "asked:u64 at:u64 user:u32 device:u8 seq:u32"),
    kind("Silent", "at:u64 user:u32"),
    kind("Quiet", "at:u64"),
    kind("Mailbox", "node:u64 user:u32 floor:u32 head:u32 digest:u64"),
    kind("Entry", "user:u32 seq:u32 copy:copy"),
    kind("ReplicaEntry", "node:u64 user:u32 seq:u32 copy:copy"),
    kind("StateHash", "at:u64 node:u64 group:u32 index:u64 hash:u128"),
    kind("Raft", "at:u64 node:u64 life:u32 group:u32 term:u64 leads:bool last:u64 "
         "committed:maybe_u64 applied:u64 snapshot:u64 purged:u64"),
    kind("Fault", "at:u64 kind:string target:string"),
    kind("Healed", "at:u64 kind:string target:string"),
    kind("Effect", "at:u64 kind:string name:string amount:u64"),
    kind("Probe", "at:u64 group:u32"),
    kind("ProbeAck", "at:u64 group:u32"),
    kind("Cost", "at:u64 process:string what:string amount:u64 bound:u64"),
    kind("Decided", "asked:u64 at:u64 user:u32 sender:u32 refused:bool"),
    kind("Target", "at:u64 user:u32 device:u8"),
    kind("Hint", "at:u64 user:u32 device:u8 head:u32"),
    kind("Judged", "at:u64 sender:u32 id:u128 judgement:judgement"),
    kind("Dropped", "user:u32 seq:u32"),
]


def events(path):
    """The events of a file, each with its kind's name."""
    with open(path, "rb") as file:
        if file.read(12) != b"TIDEHIST" + (1).to_bytes(4, "little"):
            raise Unreadable("it is no history of version 1")
        while header := file.read(8):
            length = int.from_bytes(header[:4], "little")
            if length > 1 << 20:
                raise Unreadable(f"a frame of {length} bytes")
            data = file.read(length)
            if len(header) < 8 or len(data) < length:
                raise Unreadable("it ends inside a frame")
            if zlib.crc32(data) != int.from_bytes(header[4:], "little"):
                raise Unreadable("a frame's checksum differs")
            frame = Frame(data)
            try:
                index = frame.u32()
                name, event, fields = EVENTS[index]
                event = event(*[read(frame) for read in fields])
            except (IndexError, UnicodeDecodeError) as error:
                raise Unreadable(f"a frame does not decode: {error}") from error
            if frame.at != length:
                raise Unreadable(f"a frame of {length} bytes decodes to {frame.at}")
            yield name, event
