#!/usr/bin/env python3
"""A second opinion on the history of a run: did Tidemark keep its promises in it?

It shares nothing with the first checker but what both are told: the promises G1 to G7, the meaning
of the codes, the events, the format of their files, and what an error code says of a send. So a
mistake in one of the two shows as a difference. It is simple rather than fast, and needs Python 3
and no packages.

It judges C1 to C12 and C18. What is left to the first checker:

* C13 to C17: the course of a run, what users decide, who is woken. A history that contradicts itself, ends before all came to
  rest, or lacks a mailbox is found *unusable*, never right.
* Digests are compared with each other. They are not computed again from the entries, since
  Python's library has no XXH3.

How it judges. Replicas' files, pages and devices all say which entry stands at a seq of a mailbox.
First these are laid over each other, so that what one of them has seen is known though retention
removed it. What is known is then compared with what was sent, answered and read. A place that
retention removed and that nobody saw (a *blank*) may have held anything that time allows. Only
times that are strictly apart order two events.
"""

import argparse
import sys
from bisect import bisect_left, bisect_right
from collections import defaultdict

sys.dont_write_bytecode = True  # The folder is not this program's to write to.

from history import (BACKEND, EVENTS, FINAL, NO_EFFECT, Accepted, Judgement, Message, Refusal,
                     Refused, Unreadable, events)

SEQ_MAX = 2**32 - 1

# What only an operator's checks refuse with: FILTERED, HOOK_REFUSED.
BY_CHECKS = {64, 65}

HEAD, RANGE = EVENTS[2][1], EVENTS[4][1]


# What is gathered in the order of time.

class Highest:
    """The highest value up to a time."""

    def __init__(self, values):
        self.times, self.highest = [], []
        for at, value in sorted(values):
            self.times.append(at)
            self.highest.append(max(value, self.highest[-1] if self.highest else 0))

    def before(self, time):
        place = bisect_left(self.times, time)
        return self.highest[place - 1] if place else 0

    def up_to(self, time):
        place = bisect_right(self.times, time)
        return self.highest[place - 1] if place else 0


class Send:
    """A message, with all attempts at it."""

    def __init__(self, event):
        self.sender, self.id, self.way = event.sender, event.id, event.way
        self.to, self.content, self.began = event.to, event.content, event.at
        self.attempts, self.acks, self.codes = 0, [], []
        self.origin = None
        self.judged, self.said = None, None  # What may become of it; what its first copy says.
        self.copies, self.told = defaultdict(list), defaultdict(list)

    def __str__(self):
        return f"user {self.sender}'s send {self.id:#x}"

    def is_refused(self):
        """A device's library repeats a send unseen: only a final code speaks of all attempts."""
        if any(code in FINAL for code in self.codes):
            return True
        return (self.way == "backend" and len(self.codes) == self.attempts
                and all(code in NO_EFFECT for code in self.codes))


    def contents(self, user):
        """What a copy may say in this user's mailbox."""
        if self.judged is None:
            return {self.content}
        may = {self.content if what == "allow" else of
               for what, of in self.judged if what in ("allow", "replace")}
        return may | {self.content} if self.may_be_dropped() and user == self.sender else may

    def may_be_dropped(self):
        return self.judged is not None and Judgement("drop", None) in self.judged

    def is_dropped(self):
        """It may be, and nobody but its sender has anything of it."""
        others = self.to - {self.sender}
        nothing = not any(self.copies.get(user) or self.told.get(user) for user in others)
        return self.may_be_dropped() and self.said in (None, self.content) and nothing


class Device:
    """What a device was given and took, and what the server's cursor of it was."""

    def __init__(self, user, number):
        self.name = f"user {user}, device {number}"
        self.started = self.running = False
        self.last = self.high = self.gap = self.start = 0
        self.at_rest = None  # Where it was then, if it ran.
        self.highs, self.cursors = [], []

    def moves(self, at, seq):
        self.last, self.high = seq, max(self.high, seq)
        self.highs.append((at, self.high))


class Box:
    """A mailbox: what replicas hold, and what else is known of it."""

    def __init__(self):
        self.replicas, self.entries, self.replica_seqs = {}, [], defaultdict(list)
        self.saw = {}  # By seq: the copy, when it was seen first, which promise is broken if wrong.
        self.told, self.heads = [], []  # When it was known to go so far: by entries, by its head.
        self.head_reads, self.empty_pages, self.floor_read = [], [], 0
        self.acked, self.is_used = {}, False
        self.floor = self.head = 0
        self.log, self.blanks = {}, []
        self.dropped = set()  # Where its owner's messages are that were dropped, by their verdicts.

    def low(self, time):
        """The mailbox had gone at least so far before this time."""
        return max(self.told.before(time), self.heads.before(time))

    def has_blank(self, above, below=SEQ_MAX):
        """Is there one between these?"""
        if not self.replicas:
            return True
        place = bisect_right(self.blanks, above)
        return place < len(self.blanks) and self.blanks[place] < below


class Checker:
    """Everything that a history says, and what is wrong with it."""

    def __init__(self):
        self.wrong, self.holes = defaultdict(list), []
        self.sends, self.sent_by = {}, defaultdict(list)
        self.ops, self.answered = {}, set()
        self.boxes, self.devices = defaultdict(Box), {}
        self.silent, self.rest = set(), None
        self.hashes, self.leaders, self.facts = {}, {}, {}
        self.origins, self.unnamed = {}, defaultdict(list)

    def require(self, code, holds, reason, *what):
        if not holds:
            self.wrong[code].append(reason.format(*what))

    def whole(self, holds, reason, *what):
        """Else the history contradicts itself, or is not whole."""
        if not holds:
            self.holes.append(reason.format(*what))
        return holds

    def on_send(self, event):
        send = self.sends.get((event.sender, event.id))
        if send is None:
            send = self.sends[event.sender, event.id] = Send(event)
            self.sent_by[event.sender].append(send)
        self.asks(event, send)
        same = (send.way, send.to, send.content) == (event.way, event.to, event.content)
        self.whole(same, "{}: two messages have one id", send)
        self.whole(self.rest is None, "{}: sent after the rest", send)
        send.attempts += 1

    def asks(self, event, what):
        self.whole(event.op not in self.ops, "op {} is asked twice", event.op)
        self.ops[event.op] = what

    def answers(self, event, kind):
        asked = self.ops.get(event.op)
        fits = isinstance(asked, kind) and event.op not in self.answered
        self.answered.add(event.op)
        return asked if self.whole(fits, "op {} is not what is answered", event.op) else None

    def on_sent(self, event):
        send = self.answers(event, Send)
        if send and isinstance(event.outcome, Accepted):
            send.acks.append(event.outcome)
            box = self.boxes[send.sender]
            box.acked.setdefault(event.outcome.seq, send)
            box.told.append((event.at, event.outcome.seq))
        elif send and isinstance(event.outcome, Refused):
            send.codes.append(event.outcome.code)

    def on_judged(self, event):
        send = self.sends.get((event.sender, event.id))
        if self.whole(send, "{}: nothing sent was judged", event):
            send.judged = (send.judged or []) + [event.judgement] * (event.judgement is not None)

    def on_dropped(self, event):
        self.boxes[event.user].dropped.add(event.seq)

    def on_head(self, event):
        self.asks(event, event)

    on_range = on_head

    def on_headis(self, event):
        if asked := self.answers(event, HEAD):
            box = self.boxes[asked.user]
            box.head_reads.append((asked.at, event.seq))
            box.heads.append((event.at, event.seq))

    def on_rangeis(self, event):
        if not (asked := self.answers(event, RANGE)):
            return
        box, begin = self.boxes[asked.user], max(asked.after, event.floor)
        box.floor_read = max(box.floor_read, event.floor)
        if not event.entries:
            box.empty_pages.append((asked.at, begin))
        for place, (seq, copy) in enumerate(event.entries, begin + 1):
            self.require("C8", seq == place, "{}: {} at {}", asked, seq, place)
            self.sees(asked.user, event.at, seq, copy, "C8")

    def sees(self, user, at, seq, copy, code):
        box = self.boxes[user]
        first = box.saw.setdefault(seq, (copy, at, code))
        self.require(code, first[0] == copy, "user {}, seq {}: {} and {}", user, seq, copy, first)
        box.told.append((at, seq))

    def device(self, event):
        key = event.user, event.device
        return self.devices.get(key) or self.devices.setdefault(key, Device(*key))

    def on_start(self, event):
        device = self.device(event)
        self.require("C9a", not device.started or event.cursor <= device.high,
                     "{} starts at {}, it took {}", device.name, event.cursor, device.high)
        device.started = device.running = True
        device.start = max(device.start, event.cursor)
        device.moves(event.at, event.cursor)

    def on_stop(self, event):
        self.device(event).running = False

    def on_taken(self, event):
        device, seq = self.device(event), event.seq
        self.whole(device.running, "{} takes {}, and was not started", device.name, seq)
        self.require("C9a", seq > device.last, "{}: {} after {}", device.name, seq, device.last)
        next_one = seq <= device.last + 1
        self.require("C9b", next_one, "{}: {} after {}", device.name, seq, device.last)
        device.moves(event.at, seq)
        self.sees(event.user, event.at, seq, event.copy, "C9c")

    def on_gap(self, event):
        device = self.device(event)
        self.whole(device.running, "{} is told of a gap, and was not started", device.name)
        removed = event.to > device.last
        self.require("C9b", removed, "{}: {} after {}", device.name, event, device.last)
        device.gap = max(device.gap, event.to)
        device.moves(event.at, event.to)

    def on_cursoris(self, event):
        self.device(event).cursors.append((event.asked, event.at, event.seq))

    def on_silent(self, event):
        self.silent.add(event.user)

    def on_quiet(self, event):
        self.rest = event.at
        for device in self.devices.values():
            device.at_rest = device.last if device.running else None

    def on_mailbox(self, event):
        replicas = self.boxes[event.user].replicas
        self.whole(event.node not in replicas, "{}: it was read twice", event)
        replicas[event.node] = (event.floor, event.head, event.digest)

    def on_entry(self, event):
        self.boxes[event.user].entries.append((event.seq, event.copy))

    def on_replicaentry(self, event):
        self.boxes[event.user].replica_seqs[event.node].append(event.seq)

    def on_statehash(self, event):
        first = self.hashes.setdefault((event.group, event.index), event)
        self.require("C2", first.hash == event.hash, "{} and {}", first, event)

    def on_raft(self, event):
        if event.leads:
            first = self.leaders.setdefault((event.group, event.term), event)
            self.require("C12", first.node == event.node, "{} and {}", first, event)
        order = [event.purged, event.snapshot, event.applied, event.last]
        known = event.committed is None or event.applied <= event.committed
        self.require("C12", order == sorted(order) and known, "{}", event)
        before = self.facts.get((event.node, event.group))
        self.facts[event.node, event.group] = event
        if before is None:
            return
        # A restart takes back what was not durable, but no term and no purge.
        kept = ["term", "purged"]
        if before.life == event.life:
            kept += ["applied", "snapshot", "committed"]
        for name in kept:
            was, now = getattr(before, name), getattr(event, name)
            went_back = was is not None and now is not None and now < was
            self.require("C12", not went_back, "{} after {}", event, before)

    def on_other(self, event):
        """The course of the run is the first checker's."""

    # What is judged once everything is known.

    def judge(self):
        self.whole(self.rest is not None, "it did not come to rest")
        for send in self.sends.values():
            for user in send.to | {send.sender}:
                self.boxes[user].is_used = True
        for user, _ in self.devices:
            self.boxes[user]  # From now on there is one.
        nodes = {node for box in self.boxes.values() for node in box.replicas}
        for user, box in self.boxes.items():
            self.replicas(user, box, nodes)
            self.lay_over(user, box)
        for (user, _), device in self.devices.items():
            self.device_end(device, self.boxes[user])
        for user, box in self.boxes.items():
            self.reads(user, box)
            self.messages(user, box)
        for send in self.sends.values():
            for ack in send.acks:
                if ack.origin is not None:
                    self.names(send, ack.origin, "C4")
        for user, box in self.boxes.items():
            self.refusals(user, box)
        for send in self.sends.values():
            self.fate(send)

    def replicas(self, user, box, nodes):
        """C1, C2; and which of the replicas the entries are of."""
        if not box.replicas:
            used = box.is_used or box.told or any(seq > 0 for _, seq in box.heads)
            self.whole(not used, "no replica of user {}'s mailbox was read", user)
            # It may hold, or have held, anything.
            box.floor = box.head = SEQ_MAX
            return
        same = set(box.replicas) == nodes and len(set(box.replicas.values())) == 1
        self.require("C2", same, "user {} on nodes {}: {}", user, nodes, box.replicas)
        seqs = [seq for seq, _ in box.entries]
        ends = [(floor, head) for floor, head, _ in box.replicas.values()]
        dense = [(low, high) for low, high in ends if seqs == list(range(low + 1, high + 1))]
        self.require("C1", dense, "user {}: none of {} are {}", user, ends, seqs)
        box.floor, box.head = (dense or ends)[0]
        for node, seqs in box.replica_seqs.items():
            floor, head, _ = box.replicas.get(node, (0, 0, 0))
            dense = seqs == list(range(floor + 1, head + 1))
            self.require("C1", dense, "user {}, node {}: {}", user, node, seqs)

    def lay_over(self, user, box):
        """All that is known: what the mailbox holds, and what was seen and then removed."""
        box.log = dict(box.entries)
        for seq, (copy, _, code) in box.saw.items():
            if 0 < seq <= box.floor:
                box.log.setdefault(seq, copy)
            held = box.log.get(seq)
            self.require(code, held == copy, "user {}, seq {}: {}, it is {}", user, seq, copy, held)
        if box.replicas:
            known = box.log.keys() | box.acked.keys()
            box.blanks = [seq for seq in range(1, box.floor + 1) if seq not in known]
        box.told, box.heads = Highest(box.told), Highest(box.heads)

    def device_end(self, device, box):
        """C9 and C10, against what the mailbox became."""
        name, ends = device.name, (box.floor, box.head)
        self.require("C9a", device.start <= box.head, "{}: from {}, {}", name, device.start, ends)
        self.require("C9b", device.gap <= box.floor, "{}: gap to {}, {}", name, device.gap, ends)
        complete = device.at_rest in (None, box.head) or not box.replicas
        self.require("C9d", complete, "{} has {} in the end, {}", name, device.at_rest, ends)
        never = not device.started and any(seq > 0 for _, _, seq in device.cursors)
        self.whole(not never, "{} has a cursor, and never started", name)
        # The server may have known of the device before its application began.
        first = device.highs[0][1] if device.highs else SEQ_MAX
        highs = Highest([(0, first)] + device.highs)
        cursors = Highest((at, seq) for _, at, seq in device.cursors)
        for asked, at, seq in device.cursors:
            took, before = highs.up_to(at), cursors.before(asked)
            self.require("C10", seq <= took, "{}: cursor {}, it took {}", name, seq, took)
            self.require("C10", seq <= box.head, "{}: cursor {}, {}", name, seq, ends)
            self.require("C10", before <= seq, "{}: cursor {} after {}", name, seq, before)

    def reads(self, user, box):
        """C7, and C8 where a page is empty; C7d is with what comes after it."""
        for asked, seq in box.head_reads:
            told, head = box.told.before(asked), box.heads.before(asked)
            self.require("C7a", told <= seq, "user {}: head {} after {}", user, seq, told)
            self.require("C7b", head <= seq, "user {}: head {} after {}", user, seq, head)
            self.require("C7c", seq <= box.head, "user {}: head {} of {}", user, seq, box.head)
        for asked, begin in box.empty_pages:
            low = box.low(asked)
            self.require("C8", low <= begin, "user {}: nothing after {}, not {}", user, begin, low)
        floor = box.floor_read
        self.require("C8", floor <= box.floor, "user {}: {} was no floor", user, floor)

    def messages(self, user, box):
        """C3, C5, C6: each message was asked for, is there once, and stands in its order."""
        last = {}
        for seq, copy in sorted(box.log.items()):
            if isinstance(copy, Refusal):
                continue
            send = self.sends.get((copy.sender, copy.id))
            fits = send and (user == send.sender or user in send.to)
            fits = fits and (send.judged is not None or copy.content == send.content)
            fits = fits and (copy.origin == BACKEND) == (send.way == "backend")
            self.require("C5", fits, "user {}, seq {}: nobody sent {} there", user, seq, copy)
            if send is None:
                continue
            self.stands_after(send, user, box, seq)
            send.said = copy.content if send.said is None else send.said
            let = send.judged is None or copy.content in send.contents(user) & {send.said}
            self.require("C18", let, "user {}: {} says what nobody let pass", user, send)
            self.require("C3", user not in send.copies, "user {}: {} again", user, send)
            send.copies[user].append(seq)
            self.names(send, copy.origin, "C5")
            if copy.origin != BACKEND:
                session, n = (copy.sender, copy.origin[0]), copy.origin[1]
                before = last.get(session, 0)
                self.require("C6", before < n, "user {}: {} after {}", user, copy, before)
                last[session] = n

    def stands_after(self, send, user, box, seq):
        """Whatever was seen before the send began stands before it."""
        told, head = box.told.before(send.began), box.heads.before(send.began)
        itself = seq in box.saw and box.saw[seq][1] < send.began
        self.require("C5", not itself, "user {}: {} was seen before it was sent", user, send)
        self.require("C6", told < seq or itself, "user {}: {}, {} after {}", user, send, seq, told)
        self.require("C7d", head < seq, "user {}: {}, {} under head {}", user, send, seq, head)

    def names(self, send, origin, code):
        """One message has one origin, and one origin one message."""
        send.origin = origin if send.origin is None else send.origin
        self.require(code, send.origin == origin, "{} is {} and {}", send, send.origin, origin)
        if origin != BACKEND:
            first = self.origins.setdefault((send.sender, origin), send)
            self.require("C3", first is send, "{} and {} are {}", first, send, origin)

    def refusals(self, user, box):
        """C5: each is told to whom sent the message, about one whom it was sent to."""
        for seq, copy in sorted(box.log.items()):
            if isinstance(copy, Message):
                continue
            if copy.origin == BACKEND:
                send = self.sends.get((copy.sender, copy.id))
                fits = send and send.way == "backend"
            else:
                send = self.origins.get((copy.sender, copy.origin))
                fits = copy.id is None
            if fits and send is None:
                self.unnamed[user, copy.recipient].append(seq)
                fits = any(self.may_be(other, box, seq, copy) for other in self.sent_by[user])
            elif fits:
                fits = copy.recipient in send.to - {send.sender}
                self.stands_after(send, user, box, seq)
                send.told[copy.recipient].append(seq)
            fits = fits and user == copy.sender
            self.require("C5", fits, "user {}, seq {}: {} of nothing sent", user, seq, copy)

    def may_be(self, send, box, seq, refusal):
        """May it be of this send, whose number nobody saw because retention removed it?"""
        if send.way != "session" or send.origin is not None or send.is_refused():
            return False
        if refusal.recipient not in send.to - {send.sender}:
            return False
        if send.acks:
            return send.acks[0].seq < seq
        return box.has_blank(box.low(send.began), seq)

    def fate(self, send):
        """C4, C4b, C11: what was said of it is so, for everybody."""
        own, acks, copies = self.boxes[send.sender], send.acks, send.copies
        self.require("C4b", len({ack.seq for ack in acks}) <= 1, "{}: {}", send, acks)
        for code in BY_CHECKS.intersection(send.codes):
            refused = send.judged is not None and Judgement("refuse", code) in send.judged
            self.require("C18", refused, "{}: {}, and nobody refused it", send, code)
        if send.is_refused():
            self.require("C4b", not acks, "{}: {} and refused, {}", send, acks, send.codes)
            self.require("C11", not (copies or send.told), "{} is there: {}", send, send.codes)
            return
        if acks:
            place = acks[0].seq
            self.acknowledged(send, own, place)
        elif send.sender in copies:
            place = copies[send.sender][0]
        elif copies or send.told:
            place, told = own.low(send.began), [seqs[0] for seqs in send.told.values()]
            hidden = own.has_blank(place, min(told, default=SEQ_MAX))
            self.require("C11", hidden, "{} is there, but not at its sender's", send)
        else:
            return
        if send.sender in copies and place in own.dropped:
            self.require("C18", send.may_be_dropped(), "{}: dropped, and nobody said so", send)
            others = any(copies.get(user) or send.told.get(user) for user in send.to - {send.sender})
            self.require("C18", not others, "{}: dropped, and others know of it", send)
        if send.is_dropped() and (place <= own.floor or place in own.dropped):
            return
        for user in send.to - {send.sender} if self.rest is not None else ():
            self.outcome(send, user, place, "C4" if acks else "C11")

    def acknowledged(self, send, own, seq):
        copy = own.log.get(seq)
        removed = copy is None and 0 < seq <= own.floor and send.sender not in send.copies
        there = (copy.sender, copy.id) if isinstance(copy, Message) else None
        there = there == (send.sender, send.id) and copy.content in send.contents(send.sender)
        there = removed or there
        self.require("C4", there, "{} was acknowledged as {}, which is {}", send, seq, copy)
        # Two were told one place, and nobody saw what it held.
        self.require("C4", own.acked[seq] is send, "{} and {} are {}", own.acked[seq], send, seq)
        self.stands_after(send, send.sender, own, seq)

    def outcome(self, send, user, own_seq, code):
        """A copy at the recipient, or a refusal in the sender's mailbox after its own copy."""
        box, own = self.boxes[user], self.boxes[send.sender]
        copies, told = send.copies.get(user, []), send.told.get(user, [])
        once = len(copies) + len(told) <= 1
        self.require("C4", once, "{}: for user {} copies {}, refusals {}", send, user, copies, told)
        hidden = user in self.silent or own.head == SEQ_MAX  # A full mailbox takes no refusal.
        hidden = hidden or box.has_blank(box.low(send.began)) or own.has_blank(own_seq)
        if send.origin is None:
            hidden = hidden or any(seq > own_seq for seq in self.unnamed[send.sender, user])
        self.require(code, copies or told or hidden, "{}: nothing for user {}", send, user)


def check(path):
    """The checker, after it has judged a file."""
    checker = Checker()
    methods = {name: getattr(checker, f"on_{name}", checker.on_other) for name, _, _ in EVENTS}
    for name, event in events(path):
        methods[name](event)
    checker.judge()
    return checker


def rank(code):
    """C4b after C4, C10 after C9d."""
    number = code[1:].rstrip("abcd")
    return int(number), code


def main():
    parser = argparse.ArgumentParser(
        description="Says of each FILE, the whole history of a run, whether promises were broken.",
        epilog="Exit code 1: in one. 2: in none, but one cannot be read or judged. 0: all hold.")
    parser.add_argument("file", nargs="+", help="a history, as tidemark-chaos writes it")
    parser.add_argument("--why", action="store_true", help="the first reason for each code as well")
    arguments = parser.parse_args()
    results = set()
    for path in arguments.file:
        try:
            checker = check(path)
        except (OSError, Unreadable) as error:
            results.add(2)
            print(f"{path}: unreadable: {error}")
            continue
        codes = sorted(checker.wrong, key=rank)
        if codes:
            results.add(1)
            print(f"{path}: violated {' '.join(codes)}")
        elif checker.holes:
            results.add(2)
            print(f"{path}: unusable: {checker.holes[0]}")
        else:
            print(f"{path}: holds")
        for code in codes if arguments.why else ():
            print(f"  {code}, {len(checker.wrong[code])} times: {checker.wrong[code][0]}")
    return 1 if 1 in results else max(results, default=0)


if __name__ == "__main__":
    sys.exit(main())
